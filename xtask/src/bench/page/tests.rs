use anyhow::Result;

use super::{page, readme};
use crate::bench::results::Results;

const EXAMPLE: &str = r#"{"kind":"machine","name":"host","asked":"script/bench --quick","day":"2026-11-24","facts":["Linux 6.18","2 processors"],"versions":["rsync 3.5"]}
{"kind":"measured","set":"kept","at":"1000","contestant":"carry","values":[0.5,0.25,1.0]}
{"kind":"measured","set":"kept","at":"1000","contestant":"wipe","values":[0.125,0.125,0.2]}
{"kind":"measured","set":"kept","at":"1000","contestant":"rsync","values":[2.0,1.0,20.0]}
{"kind":"measured","set":"kept","at":"1000000","contestant":"carry","values":[0.5]}
{"kind":"measured","set":"kept","at":"1000000","contestant":"wipe","values":[0.45]}
{"kind":"measured","set":"kept","at":"1000000","contestant":"cp","values":[0.4]}
{"kind":"measured","set":"kept","at":"1000000","contestant":"cp","values":[0.6,0.4]}
{"kind":"left_out","set":"kept","at":"1000000","contestant":"rsync","why":"it would take an hour"}
{"kind":"measured","set":"declared","at":"10","contestant":"carry","values":[1.0]}
{"kind":"measured","set":"declared","at":"10","contestant":"bind","values":[1.5]}
{"kind":"outcome","set":"replace","at":"rename over it","contestant":"kept","said":"works"}
{"kind":"outcome","set":"replace","at":"rename over it","contestant":"bind","said":"fails: busy"}
{"kind":"measured","set":"memory","at":"1000","contestant":"carry","values":[4613734.0,4613734.0]}
"#;

fn results(text: &str) -> Result<Results> {
    let mut results = Results::new(include_str!("../../../../docs/benchmarks/sets.toml"))?;
    results.add(text)?;
    Ok(results)
}

/// The page of these results, where `rsync` alone has a script.
fn made(template: &str, text: &str) -> Result<String> {
    page(template, &results(text)?, |name| {
        anyhow::ensure!(name == "rsync", "there is no script {name:?}");
        Ok("#!/bin/bash\n# Copies.\n".to_owned())
    })
}

#[test]
fn a_page_has_ratios_then_who_is_ahead_then_values_with_their_spread_then_what_was_left_out()
-> Result<()> {
    let template = "# Title\n\n{{machine host}}\n\n{{plot kept}}\n\n{{set kept}}\n\nWords.\n";
    assert_eq!(
        made(template, EXAMPLE)?,
        "# Title\n\
         \n\
         Measured on 2026-11-24 by `script/bench --quick`.\n\
         \n\
         - Linux 6.18\n\
         - 2 processors\n\
         - rsync 3.5\n\
         \n\
         ![Time of a reset against the number of kept files](benchmarks/kept.svg)\n\
         \n\
         | a reset: ratios | `carry` | `cp --reflink=always -a` | `rsync -aAXH` | delete and snapshot, nothing kept |\n\
         |---|---:|---:|---:|---:|\n\
         | 1,000 kept files | 1.00 | – | 4.00 | 0.25 |\n\
         | 1,000,000 kept files | 1.00 | 0.80 | – | 0.90 |\n\
         \n\
         **Ahead of `carry`:** delete and snapshot, nothing kept for 1,000 kept files (0.25); delete and snapshot, nothing kept for 1,000,000 kept files (0.90). Ahead by less than the spread: `cp --reflink=always -a` for 1,000,000 kept files (0.80).\n\
         \n\
         | a reset: seconds | `carry` | `cp --reflink=always -a` | `rsync -aAXH` | delete and snapshot, nothing kept |\n\
         |---|---:|---:|---:|---:|\n\
         | 1,000 kept files | 0.500 (0.250–1.00, 3×) | – | 2.00 (1.00–20.0, 3×) | 0.125 (0.125–0.200, 3×) |\n\
         | 1,000,000 kept files | 0.500 | 0.400 (0.400–0.600, 3×) | – | 0.450 |\n\
         \n\
         Left out:\n\
         \n\
         - `rsync -aAXH` for 1,000,000 kept files: it would take an hour\n\
         \n\
         Words.\n"
    );
    Ok(())
}

#[test]
fn a_set_where_nobody_is_ahead_says_so_and_one_that_was_not_measured_does_too() -> Result<()> {
    assert_eq!(
        made("{{set declared}}\n{{set boot}}\n{{plot boot}}\n{{machine guest}}\n", EXAMPLE)?,
        "| a reset: ratios | `carry` | delete and snapshot, a bind mount for each path |\n\
         |---|---:|---:|\n\
         | 10 persisted paths | 1.00 | 1.50 |\n\
         \n\
         None of the others is ahead of the first column by more than the spread.\n\
         \n\
         | a reset: seconds | `carry` | delete and snapshot, a bind mount for each path |\n\
         |---|---:|---:|\n\
         | 10 persisted paths | 1.00 | 1.50 |\n\
         Not measured in this run.\n\
         Left out of this run.\n"
    );
    Ok(())
}

#[test]
fn a_row_of_one_path_is_in_the_singular() -> Result<()> {
    let one =
        r#"{"kind":"measured","set":"declared","at":"1","contestant":"carry","values":[1.0]}"#;
    assert_eq!(
        made("{{set declared}}\n", one)?,
        "| a reset: seconds | `carry` |\n|---|---:|\n| 1 persisted path | 1.00 |\n"
    );
    Ok(())
}

#[test]
fn outcomes_and_sizes_are_tables_in_words_and_units() -> Result<()> {
    assert_eq!(
        made("{{set replace}}\n{{set memory}}\n", EXAMPLE)?,
        "| one persisted file | kept in place | bind mount |\n\
         |---|---:|---:|\n\
         | rename over it | works | fails: busy |\n\
         | peak memory of a reset: size | `carry` |\n\
         |---|---:|\n\
         | 1,000 kept files | 4.4 MiB (4.4 MiB–4.4 MiB, 2×) |\n"
    );
    Ok(())
}

#[test]
fn the_readme_gets_the_plot_and_of_each_set_the_last_row_in_which_the_most_took_part() -> Result<()>
{
    let old = "Before\n<!-- made by script/bench -->\nold\n<!-- until here -->\nAfter\n";
    let new = "Before\n\
         <!-- made by script/bench -->\n\
         ![Time of a reset against the number of kept files](docs/benchmarks/kept.svg)\n\
         \n\
         | time of a reset on btrfs, relative to `carry` | `carry` | `cp --reflink=always -a` | `rsync -aAXH` | delete and snapshot, nothing kept | delete and snapshot, a bind mount for each path |\n\
         |---|---:|---:|---:|---:|---:|\n\
         | 1,000,000 kept files | 1.00 | 0.80 | – | 0.90 | – |\n\
         | 10 persisted paths | 1.00 | – | – | – | 1.50 |\n\
         <!-- until here -->\n\
         After\n";
    assert_eq!(readme(old, &results(EXAMPLE)?)?, new);
    assert_eq!(readme(new, &results(EXAMPLE)?)?, new, "made again, it is the same");
    Ok(())
}

#[test]
fn a_script_is_shown_without_its_first_line() -> Result<()> {
    assert_eq!(made("{{script rsync}}\n", "")?, "```sh\n# Copies.\n```\n");
    Ok(())
}

#[test]
fn what_means_nothing_is_an_error_that_names_it() {
    for (template, named) in [
        ("{{set keptt}}", "there is no set \"keptt\""),
        ("{{script dd}}", "there is no script \"dd\""),
        ("{{graph kept}}", "the template has {{graph kept}}, which means nothing"),
    ] {
        let said = made(template, EXAMPLE).map_err(|why| why.to_string());
        assert_eq!(said, Err(named.to_owned()));
    }
    let said = results(EXAMPLE)
        .and_then(|results| readme("no marks", &results))
        .map_err(|why| why.to_string());
    let lacks = "the README lacks the lines <!-- made by script/bench --> and <!-- until here -->, in this order";
    assert_eq!(said, Err(lacks.to_owned()));
}

#[test]
fn what_the_parts_of_one_run_say_of_their_machine_is_said_once() -> Result<()> {
    let part = |load: &str, day: &str| {
        format!(
            r#"{{"kind":"machine","name":"guest","asked":"script/bench --vm","day":"{day}","facts":["Debian in QEMU","{load}"],"versions":[]}}"#
        )
    };
    let parts = [
        part("load 1.5", "2026-11-24"),
        part("load 2.0", "2026-11-24"),
        part("load 1.5", "2026-11-25"),
    ];
    assert_eq!(
        made("{{machine guest}}\n", &parts.join("\n"))?,
        "Measured on 2026-11-24 by `script/bench --vm`.\n\n\
         - Debian in QEMU\n- load 1.5\n- load 2.0\n\n\
         Measured on 2026-11-25 by `script/bench --vm`.\n\n\
         - Debian in QEMU\n- load 1.5\n"
    );
    Ok(())
}
