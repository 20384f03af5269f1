// SPDX-License-Identifier: Apache-2.0
//! Which file a command line means, with which environment, and what to say when it cannot run.

use std::ffi::CString;
use std::io;

use hc_proto::message::FailureKind;

use crate::error::{Error, Result, reason};
use crate::user::User;

/// The search path of an image that sets none; Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Places on a search path that are tried; a longer one is a mistake.
const PATH_PLACES_MAX: usize = 256;

/// The environment of a process: what it was given, a name given twice counting as the last, and
/// what every process has.
pub(crate) fn environment(given: &[String], user: &User, hostname: &str, tty: bool) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    for variable in given {
        let name = name_of(variable);
        match env.iter_mut().find(|known| name_of(known) == name) {
            Some(known) => known.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    let mut defaults =
        vec![("PATH", DEFAULT_PATH), ("HOSTNAME", hostname), ("HOME", user.home.as_str())];
    if tty {
        defaults.push(("TERM", "xterm"));
    }
    for (name, value) in defaults {
        if !env.iter().any(|known| name_of(known) == name) {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// The value of `name` in an environment.
pub(crate) fn variable<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
}

/// The files that `program` may mean, in the order in which they are tried.
pub(crate) fn candidates(program: &str, env: &[String]) -> Vec<String> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    variable(env, "PATH")
        .unwrap_or(DEFAULT_PATH)
        .split(':')
        .take(PATH_PLACES_MAX)
        .map(|place| if place.is_empty() { "." } else { place })
        .map(|place| format!("{}/{program}", place.trim_end_matches('/')))
        .collect()
}

/// Runs the first of the candidates that can be run; returns only with the reason why none could.
///
/// The kernel judges each one by trying it, so nothing can change between look and run.
pub(crate) fn run(args: &[String], env: &[String]) -> Result<core::convert::Infallible> {
    let Some(program) = args.first() else {
        return Err(Error::invalid("no program is given"));
    };
    let (arguments, environment) = (c_strings(args)?, c_strings(env)?);
    let mut refused: Option<io::Error> = None;
    for candidate in candidates(program, env) {
        let path = c_string(&candidate)?;
        let error = crate::sys::exec(&path, &arguments, &environment);
        let absent =
            matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG));
        // As execvp(3): a refused file does not end the search, but is remembered. One that is
        // there but lacks its interpreter looks absent to exec alone.
        if !absent || program.contains('/') || is_file(&candidate) {
            refused.get_or_insert(error);
        }
    }
    Err(failure(program, refused.as_ref()))
}

fn is_file(path: &str) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
    })
}

/// What to answer for a program that did not run: because of `refused`, or since it was nowhere.
fn failure(program: &str, refused: Option<&io::Error>) -> Error {
    let shown: String = program.chars().take(256).collect();
    let Some(error) = refused else {
        return Error::new(
            FailureKind::ProgramNotFound,
            format!("exec: {shown:?}: executable file not found in $PATH"),
        );
    };
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP) => {
            FailureKind::ProgramNotFound
        }
        Some(libc::E2BIG | libc::ENOMEM | libc::EAGAIN) => FailureKind::System,
        _ => FailureKind::ProgramNotExecutable,
    };
    Error::new(kind, format!("exec: {shown:?}: {}", reason(error)))
}

fn c_strings(strings: &[String]) -> Result<Vec<CString>> {
    strings.iter().map(|string| c_string(string)).collect()
}

fn c_string(string: &str) -> Result<CString> {
    CString::new(string).map_err(|_| Error::invalid("an argument or variable contains a zero byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(strings: &[&str]) -> Vec<String> {
        strings.iter().map(ToString::to_string).collect()
    }

    fn user(home: &str) -> User {
        User { uid: 0, gid: 0, groups: Vec::new(), home: home.into() }
    }

    #[test]
    fn missing_variables_are_added_and_set_ones_kept() {
        let env =
            environment(&own(&["A=1", "HOME=/x", "A=2", "FLAG"]), &user("/root"), "pod", true);
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(env, ["A=2", "HOME=/x", "FLAG", &path, "HOSTNAME=pod", "TERM=xterm"]);
        let env = environment(&own(&["PATH="]), &user("/root"), "pod", false);
        assert_eq!(env, ["PATH=", "HOSTNAME=pod", "HOME=/root"]);
    }

    #[test]
    fn programs_are_looked_for_where_the_environment_says() {
        let env = own(&["PATH=/a:/b/::c"]);
        assert_eq!(candidates("sh", &env), ["/a/sh", "/b/sh", "./sh", "c/sh"]);
        assert_eq!(candidates("./sh", &env), ["./sh"]);
        assert_eq!(candidates("", &env), [""; 0]);
        assert_eq!(candidates("sh", &[]).len(), 6);
    }

    #[test]
    fn failures_are_told_apart_by_kind() {
        let refused = |errno| failure("prog", Some(&io::Error::from_raw_os_error(errno)));
        let absent = failure("prog", None);
        assert_eq!(absent.kind, FailureKind::ProgramNotFound);
        assert_eq!(absent.message, "exec: \"prog\": executable file not found in $PATH");
        assert_eq!(refused(libc::ENOENT).kind, FailureKind::ProgramNotFound);
        for errno in [libc::EACCES, libc::ENOEXEC, libc::EISDIR, libc::EPERM] {
            assert_eq!(refused(errno).kind, FailureKind::ProgramNotExecutable);
        }
        assert_eq!(refused(libc::EACCES).message, "exec: \"prog\": permission denied");
        assert_eq!(refused(libc::E2BIG).kind, FailureKind::System);
    }
}
