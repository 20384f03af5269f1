// SPDX-License-Identifier: Apache-2.0
//! `hyper exec` and `hyper attach`: further programs, and coming back to the first.

use hc_testkit::{Host, Terminal, until, until_ended};

#[test]
fn further_programs_run_inside_with_surroundings_and_statuses_of_their_own() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let run = ["run", "-d", "--name", "c", "-e", "A=run", "-e", "B=run", "-w", "/srv", "busybox"];
    host.hyper(run.iter().chain(&["sleep", "600"])).ok();
    let exec = |args: &[&str]| host.hyper([&["exec"], args].concat());

    let output = exec(&["c", "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!((output.status, output.stdout.as_str()), (9, "out\n"), "{output:?}");
    assert_eq!(output.stderr, "err\n");
    exec(&["c", "no-such-program"]).fails(127, "no-such-program");
    exec(&["c", "/etc/passwd"]).fails(126, "/etc/passwd");
    assert_eq!(exec(&["c", "sh", "-c", "kill -KILL $$"]).status, 137);
    exec(&["-u", "nobody-here", "c", "true"]).fails(125, "nobody-here");
    exec(&["not-there", "true"]).fails(125, "not-there");

    let script = "echo $(id -u):$(id -g):$(id -G) $(pwd) $A $B $HOME";
    assert_eq!(exec(&["c", "sh", "-c", script]).ok(), "0:0:0 /srv run run /root");
    let options = ["-u", "user", "-w", "/made/here", "-e", "A=exec", "c", "sh", "-c", script];
    assert_eq!(exec(&options).ok(), "1000:1000:1000 10 /made/here exec run /home/user");
    assert_eq!(exec(&["-u", "7:8", "c", "sh", "-c", "id -u; id -g"]).ok(), "7\n8");
    let bounds = ["c", "grep", "CapEff", "/proc/self/status"];
    assert!(exec(&bounds).ok().ends_with("a80425fb"));
    assert!(exec(&[&["--privileged"], &bounds[..]].concat()).ok().ends_with("ffffffff"));

    let input = vec![b'x'; 300_000];
    assert_eq!(host.hyper_with(["exec", "-i", "c", "wc", "-c"], &input).ok(), "300000");
    // Without -i there is an input that is at its end.
    assert_eq!(host.hyper_with(["exec", "c", "wc", "-c"], &input).ok(), "0");

    exec(&["-d", "c", "sh", "-c", "echo done >/tmp/detached"]).ok();
    until("the detached program has run", || {
        exec(&["c", "cat", "/tmp/detached"]).stdout == "done\n"
    });

    host.hyper(["stop", "--timeout", "0", "c"]).ok();
    exec(&["c", "true"]).fails(125, "not running");
    host.hyper(["rm", "c"]).ok();
    host.assert_clean();
}

#[test]
fn a_terminal_of_an_exec_has_our_size_and_ends_with_the_container() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.hyper(["run", "-d", "--name", "c", "busybox", "sleep", "600"]).ok();

    let terminal = Terminal::new();
    let mut child = terminal.start(&mut host.command(["exec", "-it", "c", "sh"]));
    terminal.until_shown("# ");
    assert!(terminal.is_raw());
    terminal.resize(&child, 40, 100);
    terminal.press("until stty size | grep '^40 100$'; do :; done; exit 4\n");
    terminal.until_shown("\r\n40 100\r\n");
    assert_eq!(until_ended(&mut child), 4, "{}", terminal.shown());
    assert!(!terminal.is_raw());

    let terminal = Terminal::new();
    let mut child = terminal.start(&mut host.command(["exec", "-it", "c", "sh"]));
    terminal.until_shown("# ");
    host.hyper(["rm", "-f", "c"]).ok();
    assert_ne!(until_ended(&mut child), 0, "{}", terminal.shown());
    assert!(!terminal.is_raw());
    host.assert_clean();
}

#[test]
fn the_detach_keys_leave_a_container_running_to_which_one_comes_back() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let terminal = Terminal::new();
    let mut child = terminal.start(&mut host.command(["run", "-it", "--name", "c", "busybox"]));
    terminal.until_shown("# ");
    terminal.press("kept=here\n");
    terminal.press("\x10\x11"); // ctrl-P ctrl-Q
    assert_eq!(until_ended(&mut child), 0, "{}", terminal.shown());
    assert!(!terminal.is_raw());
    assert_eq!(host.inspect("c")["state"], "running");

    // Also through a new daemon.
    host.kill_daemon();
    let terminal = Terminal::new();
    let mut child = terminal.start(&mut host.command(["attach", "c"]));
    until("attached", || terminal.is_raw());
    terminal.press("echo \"<$kept>\"; exit 6\n");
    assert_eq!(until_ended(&mut child), 6, "{}", terminal.shown());
    assert!(terminal.shown().contains("<here>\r\n"), "{}", terminal.shown());
    host.hyper(["attach", "c"]).fails(1, "does not run");
    host.hyper(["rm", "c"]).ok();
    host.assert_clean();
}
