// SPDX-License-Identifier: Apache-2.0
//! `hyper run` and its options, as programs inside see them.

use std::collections::BTreeMap;
use std::fs;

use hc_testkit::{Host, Output, Terminal, until, until_ended};

/// What a script printed as `key=value` lines.
fn pairs(output: Output) -> BTreeMap<String, String> {
    let text = output.ok();
    let pair = |line: &str| {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} in {text}"));
        (key.to_owned(), value.to_owned())
    };
    text.lines().map(pair).collect()
}

#[track_caller]
fn check(found: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(found.get(*key).map(String::as_str), Some(*value), "{key} in {found:#?}");
    }
}

#[test]
fn a_program_runs_and_its_output_and_status_come_back() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let output =
        host.hyper(["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(output.status, 7);
    host.assert_clean();
}

#[test]
fn programs_that_cannot_run_and_signals_have_the_exit_codes_of_docker() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let run = |command: &[&str]| host.hyper([&["run", "--rm", "busybox"], command].concat());
    run(&["no-such-program"]).fails(127, "no-such-program");
    run(&["/etc/passwd"]).fails(126, "/etc/passwd");
    let killed = run(&["sh", "-c", "kill -TERM $$"]);
    assert_eq!((killed.status, killed.stderr.as_str()), (143, ""));
    host.hyper(["run", "--rm", "--user", "nobody-here", "busybox", "true"])
        .fails(125, "nobody-here");
    host.assert_clean();
}

#[test]
fn mistakes_are_refused_before_anything_is_made() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let run = |args: &[&str]| host.hyper([&["run", "--rm"], args].concat());
    let refused = run(&["--no-such-option", "busybox"]);
    assert_eq!((refused.status, refused.stdout.as_str()), (125, ""), "{refused:?}");
    run(&["--pull", "never", "not-here"]).fails(125, "not-here");
    run(&["--volume", "/a:/b", "busybox"]).fails(125, "volumes are not supported yet");
    run(&["--network", "bridge", "busybox"]).fails(125, "bridge");
    run(&["--driver", "bochs", "busybox"]).fails(125, "bochs");
    run(&["--cap-add", "fly", "busybox"]).fails(125, "fly");
    run(&["--memory", "1k", "busybox"]).fails(125, "memory");
    run(&["--kernel", "/etc/passwd", "busybox"]).fails(125, "/etc/passwd");
    run(&["--security-opt", "apparmor=x", "busybox"]).fails(125, "apparmor");
    run(&["--stop-signal", "SIGNONE", "busybox"]).fails(125, "SIGNONE");
    run(&["--add-host", "nonsense", "busybox"]).fails(125, "nonsense");
    host.assert_clean();
}

#[test]
fn the_program_gets_the_surroundings_that_were_asked_for() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let file = host.path().join("variables");
    fs::write(&file, "# a comment\nFROM_FILE=1 2\nINHERITED\nBOTH=file\n").unwrap();
    let id_file = host.path().join("id");
    let script = r#"
        echo "uid=$(id -u)"; echo "gid=$(id -g)"; echo "groups=$(id -G)"; echo "home=$HOME"
        echo "dir=$(pwd)"; echo "host=$(hostname)"; echo "host_file=$(cat /etc/hostname)"
        echo "cpus=$(nproc)"; echo "a=$A"; echo "from_file=$FROM_FILE"; echo "both=$BOTH"
        echo "inherited=$INHERITED"; echo "files=$(ulimit -Sn):$(ulimit -Hn)"
        echo "other=$(grep other.example /etc/hosts)"; echo "servers=$(grep nameserver /etc/resolv.conf)"
        echo "search=$(grep search /etc/resolv.conf)"
        echo "shm=$(df -m /dev/shm | tail -n 1 | awk '{print $2}')"
        echo "tmpfs=$(df -m /scratch | tail -n 1 | awk '{print $2}')"
        touch /scratch/file && echo "written=yes"
    "#;
    let mut command = host.command(["run", "--rm", "--user", "user:wheel", "--hostname", "box"]);
    command
        .args(["--env", "A=b=c", "--env", "BOTH=flag", "--env-file"])
        .arg(&file)
        .arg("--cidfile")
        .arg(&id_file)
        .env("INHERITED", "from here")
        .args(["--workdir", "/made/for/me", "--cpus", "1.5", "--ulimit", "nofile=100:200"])
        .args(["--add-host", "other.example:192.0.2.7", "--dns", "192.0.2.53"])
        .args(["--dns-search", "lan.example", "--shm-size", "16m"])
        .args(["--tmpfs", "/scratch:size=4m,mode=1777", "--entrypoint", "sh"])
        .args(["busybox", "-c", script]);
    let found = pairs(command.output().unwrap().into());
    check(
        &found,
        &[
            ("uid", "1000"),
            ("gid", "10"),
            ("groups", "10"),
            ("home", "/home/user"),
            ("dir", "/made/for/me"),
            ("host", "box"),
            ("host_file", "box"),
            ("cpus", "2"),
            ("a", "b=c"),
            ("from_file", "1 2"),
            ("both", "flag"),
            ("inherited", "from here"),
            ("files", "100:200"),
            ("other", "192.0.2.7\tother.example"),
            ("servers", "nameserver 192.0.2.53"),
            ("search", "search lan.example"),
            ("shm", "16"),
            ("tmpfs", "4"),
            ("written", "yes"),
        ],
    );
    assert_eq!(fs::read_to_string(id_file).unwrap().trim().len(), 64);
    host.assert_clean();
}

#[test]
fn a_container_can_do_no_more_than_it_may() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script = r#"
        echo "ids=$(id -u):$(id -g)"
        touch /file 2>/dev/null && echo "root=writable" || echo "root=read-only"
        for key in CapBnd NoNewPrivs; do
            echo "$key=$(grep $key /proc/self/status | cut -f 2)"
        done
        echo "links=$(ls /sys/class/net | tr '\n' ' ')"
    "#;
    let output = host.hyper([
        "run",
        "--rm",
        "--user",
        "1234:5678",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "net_raw",
        "--security-opt",
        "no-new-privileges",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    check(
        &pairs(output),
        &[
            ("ids", "1234:5678"),
            ("root", "read-only"),
            ("CapBnd", "0000000000002000"),
            ("NoNewPrivs", "1"),
            ("links", "lo "),
        ],
    );

    let script = r#"
        echo "bounds=$(grep CapBnd /proc/self/status | cut -f 2)"
        mount -t tmpfs none /root 2>/dev/null && echo "mount=yes" || echo "mount=no"
        hostname changed 2>/dev/null && echo "hostname=yes" || echo "hostname=no"
        echo 1 2>/dev/null >/proc/sys/vm/drop_caches && echo "sysctl=yes" || echo "sysctl=no"
    "#;
    let run = |options: &[&str]| {
        pairs(host.hyper([&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat()))
    };
    check(
        &run(&[]),
        &[("bounds", "00000000a80425fb"), ("mount", "no"), ("hostname", "no"), ("sysctl", "no")],
    );
    let all = run(&["--privileged"]);
    check(&all, &[("mount", "yes"), ("hostname", "yes"), ("sysctl", "yes")]);
    assert!(all["bounds"].ends_with("ffffffffff"), "{all:?}");
    host.assert_clean();
}

#[test]
fn a_container_that_wants_too_much_memory_is_killed_and_says_so() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let output = host.hyper([
        "run",
        "--name",
        "greedy",
        "--memory",
        "64m",
        "--shm-size",
        "1g",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/dev/shm/file",
        "bs=1M",
    ]);
    assert_eq!(output.status, 137, "{output:?}");
    let greedy = host.inspect("greedy");
    assert_eq!(greedy["oom_killed"], true, "{greedy}");
    assert_eq!(greedy["exit_status"], 137, "{greedy}");
    host.hyper(["rm", "greedy"]).ok();
    host.assert_clean();
}

#[test]
fn a_detached_container_runs_on_and_holds_its_name() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    // Without -i, `cat` reads an end at once.
    let id = host.hyper(["run", "-d", "--name", "web", "busybox", "cat"]).ok();
    assert_eq!(host.hyper(["wait", &id]).status, 0);
    host.hyper(["rm", "web"]).ok();
    // One with --rm may be gone before anybody has come to wait for it.
    host.hyper(["run", "-d", "--rm", "--name", "web", "busybox", "cat"]).ok();
    until("--rm has removed it", || host.hyper(["ps", "-aq"]).ok().is_empty());

    let run = ["run", "-d", "--name", "web", "--label", "tier=front", "busybox", "sleep", "600"];
    let id = host.hyper(run).ok();
    assert_eq!(id.len(), 64);
    let conflict = host.hyper(run);
    conflict.fails(125, "name web is in use by container");
    assert!(conflict.stderr.contains(&id[..12]), "{conflict:?}");
    assert!(conflict.stderr.contains("\nhint: "), "{conflict:?}");

    let list = |filter: &str| host.hyper(["ps", "-q", "--no-trunc", "--filter", filter]).ok();
    assert_eq!(list("label=tier=front"), id);
    assert_eq!(list("name=we"), id);
    assert_eq!(list("status=running"), id);
    assert_eq!(list("label=tier=back"), "");
    assert_eq!(list("status=exited"), "");
    host.hyper(["rm", "--force", "web"]).ok();
    host.assert_clean();
}

#[test]
fn input_is_passed_on_until_it_ends() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let run = ["run", "-i", "--rm", "busybox", "sh", "-c", "read line; echo \"<$line>\"; wc -c"];
    let output = host.hyper_with(run, b"first\nsecond\n");
    assert_eq!(output.ok(), "<first>\n7");
    host.assert_clean();
}

#[test]
fn a_terminal_is_raw_has_our_size_and_is_put_back() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let terminal = Terminal::new();
    let mut command = host.command(["run", "-it", "--rm", "busybox"]);
    let mut child = terminal.start(&mut command);
    terminal.until_shown("# ");
    assert!(terminal.is_raw());
    terminal.press("stty size; tty\n");
    terminal.until_shown("24 80\r\n/dev/pts/0\r\n");
    terminal.resize(&child, 50, 132);
    terminal.press("until stty size | grep '^50 132$'; do :; done\n");
    terminal.until_shown("\r\n50 132\r\n");
    // ctrl-C ends what runs inside, and nothing else.
    terminal.press("sh -c 'echo wait''ing; exec sleep 600'\n");
    terminal.until_shown("\r\nwaiting\r\n");
    terminal.press("\x03");
    terminal.press("echo status $?\n");
    terminal.until_shown("status 130\r\n");
    terminal.press("exit 5\n");
    assert_eq!(until_ended(&mut child), 5, "{}", terminal.shown());
    assert!(!terminal.is_raw());
    host.assert_clean();
}
