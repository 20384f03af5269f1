// SPDX-License-Identifier: Apache-2.0
//! `completion` and `man`: what is generated from the one definition of the command line.

use std::fmt::Write as _;
use std::fs::{File, create_dir_all};
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use crate::args::{Cli, CompletionArgs, ManArgs, Shell};
use crate::failure::{Failure, Result};
use crate::show::print;

pub(crate) fn completion(args: &CompletionArgs) -> Result<u8> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hyper", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

pub(crate) fn man(args: &ManArgs) -> Result<u8> {
    let mut cli = Cli::command();
    cli.build();
    match &args.folder {
        None => print(&markdown(&cli))?,
        Some(folder) => {
            create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
            page(&cli, "hyper", folder)?;
            for (path, command) in visible(&cli) {
                page(command, &format!("hyper-{}", path.join("-")), folder)?;
            }
        }
    }
    Ok(0)
}

/// Every command with its names, and behind each those of its own.
fn visible(cli: &Command) -> Vec<(Vec<&str>, &Command)> {
    let mut all = Vec::new();
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        all.push((vec![command.get_name()], command));
        all.extend(visible(command).into_iter().map(|(mut path, inner)| {
            path.insert(0, command.get_name());
            (path, inner)
        }));
    }
    all
}

fn page(command: &Command, name: &str, folder: &Path) -> Result<()> {
    let path = folder.join(format!("{name}.1"));
    let mut file = File::create(&path).map_err(|error| cannot_write(&path, &error))?;
    let page = clap_mangen::Man::new(command.clone().name(name.to_owned()));
    page.render(&mut file).map_err(|error| cannot_write(&path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::system(format_args!("cannot write {}", path.display()), error)
}

/// The whole reference on one page.
fn markdown(cli: &Command) -> String {
    let mut out = String::from(
        "# Command line\n\n<!-- Written by `hyper man --markdown`. -->\n\n\
         `hyperctl` is another name of the same program. Options of every command:\n\n",
    );
    options(cli.get_arguments().filter(|arg| arg.get_id() == "socket"), &mut out);
    out.push_str(
        "\nEnvironment, for the daemon that `hyper` starts too:\n\n| variable | |\n| --- | --- |\n",
    );
    for (name, about) in hc_paths::env::REFERENCE {
        let _ = writeln!(out, "| `{name}` | {about} |");
    }
    for (path, command) in visible(cli) {
        section(&path.join(" "), command, &mut out);
    }
    out
}

fn section(name: &str, command: &Command, out: &mut String) {
    let _ = write!(out, "\n## hyper {name}\n\n");
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        let _ = write!(out, "{about}\n\n");
    }
    let usage = command.clone().render_usage().to_string();
    let usage: Vec<_> = usage.trim_start_matches("Usage: ").lines().map(str::trim).collect();
    let _ = write!(out, "```text\n{}\n```\n", usage.join("\n"));
    let aliases: Vec<_> = command.get_visible_aliases().map(|a| format!("`{a}`")).collect();
    if !aliases.is_empty() {
        let _ = write!(out, "\nAlso {}.\n", aliases.join(", "));
    }
    let own = |arg: &&Arg| !arg.is_hide_set() && !arg.is_global_set() && arg.get_id() != "help";
    if command.get_arguments().any(|arg| own(&arg)) {
        out.push('\n');
        options(command.get_arguments().filter(own), out);
    }
    if let Some(text) = command.get_after_help() {
        let text = text.to_string();
        let (about, example) = text.split_once('\n').unwrap_or((&text, ""));
        let example: Vec<_> = example.lines().map(str::trim).collect();
        let _ = write!(out, "\n{about}\n\n```text\n{}\n```\n", example.join("\n"));
    }
}

fn options<'a>(args: impl Iterator<Item = &'a Arg>, out: &mut String) {
    out.push_str("| option | |\n| --- | --- |\n");
    for arg in args {
        let mut names = Vec::new();
        names.extend(arg.get_short().map(|short| format!("`-{short}`")));
        names.extend(arg.get_long().map(|long| format!("`--{long}`")));
        let values: Vec<_> = arg.get_value_names().into_iter().flatten().collect();
        let value = if arg.get_action().takes_values() {
            values.iter().map(|value| value.replace('|', "\\|")).collect::<Vec<_>>().join(" ")
        } else {
            String::new()
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        let left = format!("{} {value}", names.join(", "));
        let _ = writeln!(out, "| {} | {help} |", left.trim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_every_command_and_no_hidden_one() {
        let mut cli = Cli::command();
        cli.build();
        let text = markdown(&cli);
        for (path, _) in visible(&cli) {
            assert!(text.contains(&format!("## hyper {}\n", path.join(" "))), "{path:?}");
        }
        assert!(text.contains("## hyper template prune\n"), "{text}");
        assert!(text.contains("| `-p`, `--publish` PORT |"), "{text}");
        assert!(!text.contains("volumes-from") && !text.contains("hyper man\n"));
    }

    /// `UPDATE_EXPECT=1 cargo test -p hc-cli` writes the file anew.
    #[test]
    fn the_reference_in_the_documentation_is_up_to_date() {
        let mut cli = Cli::command();
        cli.build();
        expect_test::expect_file!["../../../../docs/cli.md"].assert_eq(&markdown(&cli));
    }

    #[test]
    fn man_pages_are_written_for_every_command() {
        let dir = tempfile::tempdir().unwrap();
        let args = ManArgs { folder: Some(dir.path().to_owned()), markdown: false };
        assert_eq!(man(&args).unwrap(), 0);
        let page = std::fs::read_to_string(dir.path().join("hyper-run.1")).unwrap();
        assert!(page.contains("hyper\\-run") && page.contains("\\-\\-publish"), "{page}");
        assert!(dir.path().join("hyper-template-create.1").exists());
        assert!(dir.path().join("hyper.1").exists() && !dir.path().join("hyper-man.1").exists());
    }
}
