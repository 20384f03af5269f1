// SPDX-License-Identifier: Apache-2.0
use clap::CommandFactory;
use expect_test::{Expect, expect};

use super::*;

#[track_caller]
fn check(path: &[&str], expected: Expect) {
    let mut command = Cli::command().term_width(80);
    command.build();
    let found = path.iter().try_fold(&mut command, |c, name| c.find_subcommand_mut(name));
    expected.assert_eq(&found.unwrap().render_help().to_string());
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_lists_every_command() {
    check(
        &[],
        expect![[r"
        Runs container images, each in a virtual machine of its own

        Usage: hyper [OPTIONS] <COMMAND>

        Commands:
          run         Run an image in a new container, in a VM of its own
          create      Make a container without starting it, and print its id
          start       Start containers that were made or have ended
          stop        Ask containers to stop, and kill those that do not
          restart     Stop containers and start them again
          kill        Send a signal to containers
          pause       Hold the CPUs of containers' VMs
          unpause     Let paused containers go on
          clone       Copy a running container, let the copy go on in a VM of its own,
                      and print its id
          rm          Remove containers
          exec        Run another program in a running container
          attach      Connect to a running container's input and output
          logs        Show what a container wrote
          wait        Wait until containers have ended, and print their exit codes
          ps          List containers [aliases: list, ls]
          pods        List pods: VMs with their containers
          inspect     Show everything about containers or images, as JSON
          top         Show a container's processes
          stats       Show what containers use
          cp          Copy files between a container and this host
          info        Show what the daemon has, and what this host can do
          version     Show the versions of this program and of the daemon
          doctor      Check this host, and say what to fix
          pull        Fetch an image from a registry
          load        Take in images from an archive: `docker save`'s, or an OCI layout
                      as tar
          import      Make an image of the tar archive of a root file system
          images      List images
          rmi         Remove images, or names of them
          tag         Give an image another name
          snapshot    Manage snapshots: running containers that were copied, memory and
                      disks and all
          template    Manage templates: booted guests that containers start from
          completion  Print a script that completes commands and options in a shell

        Options:
          -h, --help     Print help
          -V, --version  Print version

        Global options:
              --socket <PATH>  Socket of a daemon that is kept running by others;
                               without it, one is started as needed [env: HYPER_SOCKET]
    "]],
    );
}

#[test]
fn help_of_a_small_command_is_small() {
    check(
        &["stop"],
        expect![[r"
        Ask containers to stop, and kill those that do not

        Usage: hyper stop [OPTIONS] <CONTAINER>...

        Arguments:
          <CONTAINER>...  Containers, by name or id

        Options:
          -t, --timeout <SECONDS>  Seconds before the kill [alias: --time]
          -h, --help               Print help

        Global options:
              --socket <PATH>  Socket of a daemon that is kept running by others;
                               without it, one is started as needed [env: HYPER_SOCKET]
    "]],
    );
    check(
        &["cp"],
        expect![[r"
        Copy files between a container and this host

        Usage: hyper cp [OPTIONS] <FROM> <TO>

        Arguments:
          <FROM>  What to copy: CONTAINER:PATH, PATH, or `-`
          <TO>    Where to: CONTAINER:PATH, PATH, or `-`

        Options:
          -a, --archive      Keep owners and all mode bits
          -L, --follow-link  Follow a symbolic link that FROM itself is
          -q, --quiet        Print no summary
          -h, --help         Print help (see more with '--help')

        Global options:
              --socket <PATH>  Socket of a daemon that is kept running by others;
                               without it, one is started as needed [env: HYPER_SOCKET]
    "]],
    );
}
