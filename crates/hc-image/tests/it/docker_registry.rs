// SPDX-License-Identifier: Apache-2.0
//! Debian's docker-registry, run for a test.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{POLL, program, run};

/// Debian's docker-registry on a free port, ended with the value.
pub(crate) struct DockerRegistry {
    child: Child,
    pub(crate) address: String,
    _dir: tempfile::TempDir,
}

/// `user` with password `secret`, by bcrypt.
const HTPASSWD: &str = "user:$2b$05$EDwX/kxuwAfkUfp6srCtP.QTw.bakvVjjntAscxZiX/StbBP13fUG\n";

impl DockerRegistry {
    pub(crate) fn start(with_login: bool) -> Option<DockerRegistry> {
        let program = program("docker-registry")?;
        let dir = tempfile::TempDir::new().unwrap();
        // Between us and the registry someone else may take the port; then the next is tried.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap().to_string();
            drop(free);
            let config = dir.path().join("config.yml");
            fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            fs::write(&config, config_yaml(dir.path(), &address, with_login)).unwrap();
            let mut command = Command::new(&program);
            command.arg("serve").arg(&config).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            while child.try_wait().unwrap().is_none() {
                if std::net::TcpStream::connect(&address).is_ok() {
                    return Some(DockerRegistry { child, address, _dir: dir });
                }
                assert!(Instant::now() < deadline, "docker-registry does not answer");
                std::thread::park_timeout(POLL);
            }
        }
        panic!("docker-registry does not start");
    }

    /// Fills it through another program; says under which name.
    pub(crate) fn push(
        &self,
        skopeo: &Path,
        source: &str,
        name: &str,
        login: Option<&str>,
    ) -> String {
        let target = format!("docker://{}/{name}", self.address);
        let mut command = Command::new(skopeo);
        command.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]);
        if let Some(login) = login {
            command.args(["--dest-creds", login]);
        }
        run(command.args([source, &target]));
        format!("{}/{name}", self.address)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config_yaml(dir: &Path, address: &str, with_login: bool) -> String {
    let dir = dir.display();
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {dir}/htpasswd\n");
    format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: \
         {dir}/data\nhttp:\n  addr: {address}\n{}",
        if with_login { auth.as_str() } else { "" }
    )
}
