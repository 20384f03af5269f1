// SPDX-License-Identifier: Apache-2.0
//! The reader that counts: Linux mounts an image. Needs root, a loop device and EROFS.

use std::process::Command;

use expect_test::expect;

use crate::archive::{Archive, Header};
use crate::image::build;

#[test]
fn linux_mounts_the_image_and_finds_everything() {
    let mut holes = vec![0; 600_000];
    holes[300_000] = 1;
    let name = "n".repeat(255);
    let lower = Archive::new()
        .dir("./", 0o755)
        .file("small", b"inline")
        .file("edge", &[7; 4096])
        .file("large", &vec![8; 200_001])
        .file("holes", &holes)
        .file(&format!("{}{name}", "d/".repeat(40)), b"deep")
        .symlink("usr", "d/d")
        .file("gone", b"");
    let mut upper = Archive::new()
        .link("usr/hard", "small")
        .file(".wh.gone", b"")
        .symlink("far", &"t/".repeat(2047))
        .pax(&[("mtime", b"-5"), ("uid", b"70000")])
        .entry(
            Header { path: b"null", kind: b'3', mode: 0o666, device: (1, 3), ..Header::default() },
            b"",
        );
    for at in 0..1000 {
        upper = upper.file(&format!("many/{at}"), b"");
    }
    let image = build(&[lower.finish(), upper.finish()]).unwrap();

    // The mount lives in a namespace of the shell's own, so that nothing of it is left.
    let script = r#"
        set -e
        mount -t erofs -o loop,ro "$1" "$2" || exit 77
        cd "$2"
        cat small usr/hard "$(find d -name 'nnn*')"
        echo
        cksum edge large holes | cut -d' ' -f1,3
        stat -c '%A %u:%g %Y %t:%T %h %n' null usr/hard many
        readlink far | wc -c
        ls many | wc -l
        test -e many/999 && test ! -e gone
    "#;
    let target = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([image.file.path(), target.path()])
        .env("LC_ALL", "C")
        .output();
    let stderr = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output {
        Ok(output) if output.status.success() => expect![[r#"
                inlineinlinedeep
                3939389173 edge
                952240230 large
                417756293 holes
                crw-rw-rw- 70000:0 -5 1:3 1 null
                -rw-r--r-- 0:0 0 0:0 2 usr/hard
                drwxr-xr-x 0:0 0 0:0 2 many
                4095
                1000
            "#]]
        .assert_eq(&String::from_utf8_lossy(&output.stdout)),
        Ok(output)
            if output.status.code() == Some(77) || output.stderr.starts_with(b"unshare:") =>
        {
            eprintln!("skipped: cannot mount here: {}", stderr(&output.stderr));
        }
        Ok(output) => panic!("{}", stderr(&output.stderr)),
        Err(_) => eprintln!("skipped: no unshare to mount with"),
    }
}
