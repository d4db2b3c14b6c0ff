//! `darlings man`: manual pages from the same source as `--help`, and one on the configuration from
//! the README.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use super::ready;

mod after_help;
mod markdown;

/// System administration.
const SECTION: &str = "8";

/// What is at the foot of each page.
const MANUAL: &str = "darlings";

/// The README, of which the section on the configuration is a page.
const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The directory that the pages are written to; it is made when it is absent
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes a page for each command, as the command line is.
pub(super) fn run(command: clap::Command, arguments: &Arguments) -> ExitCode {
    let directory = &arguments.directory;
    let written = pages(command).and_then(|pages| {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {directory:?}"))?;
        pages.iter().try_for_each(|page| page.write(directory))
    });
    ready::ended(written.map(|()| ExitCode::SUCCESS))
}

struct Page {
    name: String,
    text: String,
}

impl Page {
    fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(&self.name);
        std::fs::write(&path, &self.text).with_context(|| format!("cannot write {path:?}"))
    }
}

fn pages(command: clap::Command) -> anyhow::Result<Vec<Page>> {
    // `darlings help reset` says what `darlings reset --help` does.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let source = format!("darlings {}", command.get_version().unwrap_or_default());
    let mut pages = vec![configuration(&source)?];
    let mut others = vec!["darlings.toml(5)".to_owned()];
    let shown = |command: &&clap::Command| !command.is_hide_set();
    for subcommand in command.get_subcommands().filter(shown) {
        let see = ["darlings(8)".to_owned(), others[0].clone()];
        pages.push(page(subcommand, &source, &see)?);
    }
    let of_subcommands = pages[1..].iter().map(|page| page.name.replace(".8", "(8)"));
    others.extend(of_subcommands);
    pages.push(page(&command, &source, &others)?);
    Ok(pages)
}

fn page(command: &clap::Command, source: &str, see: &[String]) -> anyhow::Result<Page> {
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
    see_also(see, &mut roff);
    roff.to_writer(&mut text)?;
    let text = String::from_utf8(text).context("BUG: clap_mangen wrote no UTF-8")?;
    // An empty line between two breaks, which is said more plainly.
    let text = text.replace(".br\n\n.br\n", ".sp\n");
    let name = man.get_filename();
    let title = name.trim_end_matches(&format!(".{SECTION}")).to_owned();
    Ok(Page { name, text: whole(&title, SECTION, source, &text) })
}

/// A page with its title. There is no date: that of the build would make every build another one.
fn whole(title: &str, section: &str, source: &str, text: &str) -> String {
    // What each part begins with is needed once.
    let preamble = Roff::new().render();
    let text = text.replace(&preamble, "");
    format!("{preamble}.TH \"{title}\" \"{section}\" \"\" \"{source}\" \"{MANUAL}\"\n{text}")
}

fn see_also(pages: &[String], roff: &mut Roff) {
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (index, page) in pages.iter().enumerate() {
        let (name, section) = page.split_at(page.find('(').unwrap_or(page.len()));
        let comma = if index + 1 < pages.len() { ", " } else { "" };
        line.extend([bold(name), roman(format!("{section}{comma}"))]);
    }
    roff.text(line);
}

fn configuration(source: &str) -> anyhow::Result<Page> {
    let section = section(README, "Configuration")
        .context("BUG: the README has no section on the configuration")?;
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]);
    roff.text([roman("darlings.toml - what darlings(8) resets and keeps")]);
    roff.control("SH", ["DESCRIPTION"]);
    markdown::render(section, &mut roff);
    see_also(&["darlings(8)".to_owned(), "darlings-reset(8)".to_owned()], &mut roff);
    // Below a heading no paragraph needs to begin.
    let text = roff.render().replace("DESCRIPTION\n.PP\n", "DESCRIPTION\n");
    let text = whole("darlings.toml", "5", source, &text);
    Ok(Page { name: "darlings.toml.5".to_owned(), text })
}

/// What stands below a heading of the second level.
fn section<'t>(text: &'t str, heading: &str) -> Option<&'t str> {
    let (_, after) = text.split_once(&format!("\n## {heading}\n"))?;
    Some(after.split_once("\n## ").map_or(after, |(section, _)| section))
}

#[cfg(test)]
mod tests {
    use super::section;

    #[test]
    fn a_section_ends_where_the_next_of_its_level_begins() {
        let text = "# T\n\n## One\n\na\n\n### Inner\n\nb\n\n## Two\n\nc\n";
        assert_eq!(section(text, "One"), Some("\na\n\n### Inner\n\nb\n"));
        assert_eq!(section(text, "Two"), Some("\nc\n"));
        assert_eq!(section(text, "Inner"), None);
    }
}
