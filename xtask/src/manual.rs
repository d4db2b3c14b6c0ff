//! The manual pages: each from the same source as `--help` and from `pages.toml`, and darlings.toml(5)
//! from the README, and darlings.nix(5) from the options of the module.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap_mangen::Man;
use darlings::generations::listing::utc;
use roff::{Roff, bold, roman};
use serde::Deserialize;

mod after_help;
mod markdown;

/// System administration.
const SECTION: &str = "8";

/// At the foot of each page.
const MANUAL: &str = "darlings";

/// Its section on the configuration is a page.
const README: &str = include_str!("../../README.md");

/// What `--help` does not say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    /// What each does, and the command.
    examples: Vec<(String, String)>,
    #[serde(default)]
    files: Vec<(String, String)>,
    #[serde(default)]
    see: Vec<String>,
}

fn words() -> Result<BTreeMap<String, Words>> {
    toml::from_str(include_str!("manual/pages.toml")).context("manual/pages.toml")
}

/// The day of `SOURCE_DATE_EPOCH`, or of the last commit: the same sources make the same pages.
pub(crate) fn date() -> Result<String> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds,
        Err(std::env::VarError::NotPresent) => {
            let mut git = Command::new("git");
            git.args(["-C", env!("CARGO_MANIFEST_DIR"), "log", "-1", "--format=%ct"]);
            let output = git.output().context("cannot run git; set SOURCE_DATE_EPOCH instead")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{said}; set SOURCE_DATE_EPOCH instead");
            String::from_utf8(output.stdout)?
        }
        Err(error) => return Err(error).context("SOURCE_DATE_EPOCH"),
    };
    let seconds = seconds.trim();
    let time = seconds.parse().with_context(|| format!("{seconds:?} is not a time in seconds"))?;
    Ok(utc(time).chars().take_while(|it| *it != ' ').collect())
}

/// The pages, by the names of their files.
pub(crate) fn pages(date: &str) -> Result<Vec<(String, String)>> {
    // `darlings help reset` says what `darlings reset --help` does.
    let mut command = darlings::cli::command().disable_help_subcommand(true);
    command.build();
    let words = words()?;
    let readme =
        section(README, "Configuration").context("the README has no section \"Configuration\"")?;
    let mut pages = vec![
        configuration("darlings.toml", "what darlings(8) resets and keeps", readme, &words, date)?,
        configuration(
            "darlings.nix",
            "the options of the NixOS module of darlings(8)",
            &crate::nixos_options::body()?,
            &words,
            date,
        )?,
    ];
    let mut all = vec!["darlings.toml(5)".to_owned(), "darlings.nix(5)".to_owned()];
    for subcommand in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        let name = subcommand.get_name();
        let words = words.get(name).with_context(|| format!("pages.toml: no {name}"))?;
        let mut see = vec!["darlings(8)".to_owned(), "darlings.toml(5)".to_owned()];
        see.extend(words.see.clone());
        pages.push(page(subcommand, words, &see, date)?);
        all.push(format!("darlings-{name}(8)"));
    }
    let words = words.get(MANUAL).context("pages.toml: no darlings")?;
    pages.push(page(&command, words, &all, date)?);
    Ok(pages)
}

fn page(
    command: &clap::Command,
    words: &Words,
    see: &[String],
    date: &str,
) -> Result<(String, String)> {
    let mut text = Vec::new();
    let man = Man::new(command.clone()).section(SECTION);
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    if let Some(after) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        after_help::render(&after.to_string(), &mut roff);
    }
    let files = command.get_arguments().filter_map(|argument| {
        let file = argument.get_default_values().first()?.to_str()?;
        let about = argument.get_help()?.to_string();
        file.starts_with('/').then(|| (file.to_owned(), about + "."))
    });
    ending(&mut roff, words, files.collect(), see);
    roff.to_writer(&mut text)?;
    let text = String::from_utf8(text).context("BUG: clap_mangen wrote no UTF-8")?;
    // An empty line between two breaks, which is said more plainly.
    let text = text.replace(".br\n\n.br\n", ".sp\n");
    let name = man.get_filename();
    let title = name.trim_end_matches(&format!(".{SECTION}"));
    let text = whole(title, SECTION, date, &text);
    Ok((name, text))
}

/// A page with its title.
fn whole(title: &str, section: &str, date: &str, text: &str) -> String {
    // What each part begins with is needed once.
    let preamble = Roff::new().render();
    let text = text.replace(&preamble, "");
    let source = format!("darlings {}", env!("CARGO_PKG_VERSION"));
    format!("{preamble}.TH \"{title}\" \"{section}\" \"{date}\" \"{source}\" \"{MANUAL}\"\n{text}")
}

/// FILES, EXAMPLES and SEE ALSO.
fn ending(roff: &mut Roff, words: &Words, mut files: Vec<(String, String)>, see: &[String]) {
    files.extend(words.files.clone());
    roff.control("SH", ["FILES"]);
    for (file, about) in files {
        roff.control("TP", []).text([bold(file)]).text([roman(about)]);
    }
    roff.control("SH", ["EXAMPLES"]);
    for (index, (about, example)) in words.examples.iter().enumerate() {
        if index > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(about)]).control("PP", []).control("RS", ["4"]).control("EX", []);
        for line in example.trim_start().lines() {
            roff.text([roman(line)]);
        }
        roff.control("EE", []).control("RE", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (index, page) in see.iter().enumerate() {
        let (name, section) = page.split_at(page.find('(').unwrap_or(page.len()));
        let comma = if index + 1 < see.len() { ", " } else { "" };
        line.extend([bold(name), roman(format!("{section}{comma}"))]);
    }
    roff.text(line);
}

/// The page of a file, from a description in Markdown.
fn configuration(
    name: &str,
    about: &str,
    description: &str,
    words: &BTreeMap<String, Words>,
    date: &str,
) -> Result<(String, String)> {
    let words = words.get(name).with_context(|| format!("pages.toml: no {name}"))?;
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {about}"))]);
    roff.control("SH", ["DESCRIPTION"]);
    markdown::render(description, &mut roff);
    let mut see = vec!["darlings(8)".to_owned()];
    see.extend(words.see.clone());
    ending(&mut roff, words, Vec::new(), &see);
    // Below a heading no paragraph needs to begin.
    let text = roff.render().replace("DESCRIPTION\n.PP\n", "DESCRIPTION\n");
    Ok((format!("{name}.5"), whole(name, "5", date, &text)))
}

/// What stands below a heading of the second level.
fn section<'t>(text: &'t str, heading: &str) -> Option<&'t str> {
    let (_, after) = text.split_once(&format!("\n## {heading}\n"))?;
    Some(after.split_once("\n## ").map_or(after, |(section, _)| section))
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::{section, words};

    #[test]
    fn every_example_is_a_command_line_that_darlings_takes() -> Result<()> {
        let mut tried = 0;
        for (page, words) in words()? {
            for (_, example) in &words.examples {
                let command = example.split(" | ").next().unwrap_or_default();
                if command.starts_with("darlings ") {
                    let arguments = command.split(' ');
                    let result = darlings::cli::command().try_get_matches_from(arguments);
                    assert!(result.is_ok(), "{page}: {example}: {result:?}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 20, "{tried}");
        Ok(())
    }

    #[test]
    fn a_section_ends_where_the_next_of_its_level_begins() {
        let text = "# T\n\n## One\n\na\n\n### Inner\n\nb\n\n## Two\n\nc\n";
        assert_eq!(section(text, "One"), Some("\na\n\n### Inner\n\nb\n"));
        assert_eq!(section(text, "Two"), Some("\nc\n"));
        assert_eq!(section(text, "Inner"), None);
    }
}
