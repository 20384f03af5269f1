// SPDX-License-Identifier: Apache-2.0
//! Containers and the world outside: published ports, the host's own services, registries.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hc_testkit::{Host, has_program, skip, until};

use crate::copy::docker_archive;

/// Answers each datagram on port 7 with itself, and writes a line first.
const UDP_ECHO: &str = r#"
    #include <arpa/inet.h>
    #include <stdio.h>
    int main(void) {
        char data[2000];
        struct sockaddr_in here = {AF_INET, htons(7)}, peer;
        int s = socket(AF_INET, SOCK_DGRAM, 0);
        if (bind(s, (void *)&here, sizeof here)) return 1;
        puts("ready");
        fflush(stdout);
        for (;;) {
            socklen_t size = sizeof peer;
            int n = recvfrom(s, data, sizeof data, 0, (void *)&peer, &size);
            sendto(s, data, n, 0, (void *)&peer, size);
        }
    }
"#;

/// Where a port of the container `c` is published.
fn published(host: &Host, port: u16, protocol: &str) -> SocketAddr {
    let container = host.inspect("c");
    let ports = container["ports"].as_array().unwrap();
    let found = ports
        .iter()
        .find(|found| found["container_port"] == port && found["protocol"] == protocol)
        .unwrap_or_else(|| panic!("{container}"));
    let ip: std::net::IpAddr = found["host_ip"].as_str().unwrap().parse().unwrap();
    (ip, u16::try_from(found["host_port"].as_u64().unwrap()).unwrap()).into()
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn published_ports_lead_into_the_container_while_it_runs() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let program = host.path().join("echo");
    let mut compiler = Command::new("gcc");
    compiler.args(["-static", "-x", "c", "-", "-o"]).arg(&program).stdin(Stdio::piped());
    let mut compiler = compiler.spawn().unwrap();
    compiler.stdin.take().unwrap().write_all(UDP_ECHO.as_bytes()).unwrap();
    assert!(compiler.wait().unwrap().success());

    let script = "mkdir /www; echo the page >/www/page; exec httpd -f -p 80 -h /www";
    let run = ["run", "-d", "--name", "c", "-p", "127.0.0.1:0:80", "-p", "127.0.0.1::7/udp"];
    host.hyper([&run[..], &["busybox", "sh", "-c", script]].concat()).ok();
    host.hyper(["cp", "-q", program.to_str().unwrap(), "c:/bin/echo-udp"]).ok();
    let mut echo = host.command(["exec", "c", "echo-udp"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 6];
    echo.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();

    let tcp = published(&host, 80, "tcp");
    assert!(tcp.ip().is_loopback());
    let shown = host.hyper(["ps", "--format", "{{.Ports}}"]).ok();
    assert!(shown.contains(&format!("{tcp}->80/tcp")), "{shown}");
    until("the page is served", || get(tcp).is_ok_and(|answer| answer.ends_with("the page\n")));

    let udp = published(&host, 7, "udp");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.connect(udp).unwrap();
    socket.send(b"a datagram").unwrap();
    let mut answer = [0; 100];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"a datagram");

    // The port is taken, so a second container cannot have it.
    let same = format!("{tcp}:80");
    host.hyper(["run", "--rm", "-p", &same, "busybox", "true"]).fails(125, &tcp.port().to_string());
    host.hyper(["rm", "-f", "c"]).ok();
    echo.wait().unwrap();
    assert!(get(tcp).is_err(), "nobody listens any more");
    host.assert_clean();
}

#[test]
fn the_hosts_own_services_are_out_of_reach_unless_asked_for() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"from the host\n"); // The guest may have gone.
        }
    });
    let script = format!("nc -w 20 10.0.2.2 {port} </dev/null");
    let run = |options: &[&str]| {
        host.hyper([&["run", "--rm"], options, &["busybox", "sh", "-c", &script]].concat())
    };
    let denied = run(&[]);
    assert_ne!(denied.status, 0, "{denied:?}");
    assert_eq!(denied.stdout, "", "{denied:?}");
    assert_eq!(run(&["--allow-host"]).ok(), "from the host");
    host.assert_clean();
}

/// Debian's registry on a free port of loopback, ended with the value.
struct Registry {
    process: Child,
    address: SocketAddr,
}

impl Registry {
    fn start(dir: &Path) -> Registry {
        // Between our look and its start someone else may take the port; then the next is tried.
        loop {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let config = dir.join("registry.yml");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'}}\n\
                 storage: {{filesystem: {{rootdirectory: '{}'}}}}\n",
                dir.join("registry").display()
            );
            fs::write(&config, text).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
            let mut process = command.spawn().unwrap();
            let mut ended = false;
            until("the registry answers", || {
                ended = process.try_wait().unwrap().is_some();
                ended || TcpStream::connect(address).is_ok()
            });
            if !ended {
                return Registry { process, address };
            }
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn an_image_that_is_missing_is_pulled() {
    let Some(host) = Host::new() else { return };
    if !has_program("skopeo") || !has_program("docker-registry") {
        return skip("no skopeo or docker-registry");
    }
    let registry = Registry::start(host.path());
    let name = format!("{}/team/app:v1", registry.address);
    let push = |word: &str| {
        let archive = host.path().join(word);
        fs::write(&archive, docker_archive("any:name", &["/busybox", "echo", word])).unwrap();
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]);
        skopeo.arg(format!("docker-archive:{}", archive.display())).arg(format!("docker://{name}"));
        let output = skopeo.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let run = |policy: &str| host.hyper(["run", "--rm", "--quiet", "--pull", policy, &name]);

    push("first");
    run("never").fails(125, &name);
    assert_eq!(run("missing").ok(), "first");
    push("second");
    assert_eq!(run("missing").ok(), "first");
    assert_eq!(run("never").ok(), "first");
    assert_eq!(run("always").ok(), "second");
    let missing = format!("{}/team/none:v1", registry.address);
    host.hyper(["run", "--rm", &missing]).fails(125, "team/none");
    assert!(host.hyper(["pull", "--quiet", &name]).ok().contains("team/app"));
    host.assert_clean();
}
