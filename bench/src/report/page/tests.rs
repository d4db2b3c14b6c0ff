use darlings_bench::record::{LeftOut, Line, Machine, Measured, Outcome};

use super::{page, readme};

fn measured(set: &str, at: &str, contestant: &str, values: &[f64]) -> Line {
    let (set, at, contestant) = (set.into(), at.into(), contestant.into());
    Line::Measured(Measured { set, at, contestant, values: values.to_vec() })
}

fn example() -> Vec<Line> {
    vec![
        Line::Machine(Machine {
            name: "host".into(),
            asked: "script/bench --quick".into(),
            day: "2026-11-24".into(),
            facts: vec!["Linux 6.18".into(), "2 processors".into()],
            versions: vec!["rsync 3.5".into()],
        }),
        measured("kept", "1000", "carry", &[0.5, 0.25, 1.0]),
        measured("kept", "1000", "wipe", &[0.125, 0.125, 0.2]),
        measured("kept", "1000", "rsync", &[2.0, 1.0, 20.0]),
        measured("kept", "1000000", "carry", &[0.5]),
        measured("kept", "1000000", "wipe", &[0.45]),
        measured("kept", "1000000", "cp", &[0.4, 0.6, 0.4]),
        Line::LeftOut(LeftOut {
            set: "kept".into(),
            at: "1000000".into(),
            contestant: "rsync".into(),
            why: "it would take an hour".into(),
        }),
        measured("declared", "10", "carry", &[1.0]),
        measured("declared", "10", "bind", &[1.5]),
        Line::Outcome(Outcome {
            set: "replace".into(),
            at: "rename over it".into(),
            contestant: "kept".into(),
            said: "works".into(),
        }),
        Line::Outcome(Outcome {
            set: "replace".into(),
            at: "rename over it".into(),
            contestant: "bind".into(),
            said: "fails: busy".into(),
        }),
        measured("memory", "1000", "carry", &[4_613_734.0, 4_613_734.0]),
    ]
}

#[test]
fn a_page_has_ratios_then_who_is_ahead_then_values_with_their_spread_then_what_was_left_out()
-> anyhow::Result<()> {
    let template = "# Title\n\n{{machine host}}\n\n{{plot kept}}\n\n{{set kept}}\n\nWords.\n";
    assert_eq!(
        page(template, &example())?,
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
         **Ahead of `carry`:** delete and snapshot, nothing kept at 1,000 kept files (0.25); delete and snapshot, nothing kept at 1,000,000 kept files (0.90). Ahead by less than the spread: `cp --reflink=always -a` at 1,000,000 kept files (0.80).\n\
         \n\
         | a reset: seconds | `carry` | `cp --reflink=always -a` | `rsync -aAXH` | delete and snapshot, nothing kept |\n\
         |---|---:|---:|---:|---:|\n\
         | 1,000 kept files | 0.500 (0.250–1.00, 3×) | – | 2.00 (1.00–20.0, 3×) | 0.125 (0.125–0.200, 3×) |\n\
         | 1,000,000 kept files | 0.500 | 0.400 (0.400–0.600, 3×) | – | 0.450 |\n\
         \n\
         Left out:\n\
         \n\
         - `rsync -aAXH` at 1,000,000 kept files: it would take an hour\n\
         \n\
         Words.\n"
    );
    Ok(())
}

#[test]
fn a_set_where_nobody_is_ahead_says_so_and_one_that_was_not_measured_does_too() -> anyhow::Result<()>
{
    assert_eq!(
        page("{{set declared}}\n{{set boot}}\n{{plot boot}}\n{{machine guest}}\n", &example())?,
        "| a reset: ratios | `carry` | delete and snapshot, a bind mount for each path |\n\
         |---|---:|---:|\n\
         | 10 declared paths | 1.00 | 1.50 |\n\
         \n\
         Nobody is ahead of `carry` by more than the spread.\n\
         \n\
         | a reset: seconds | `carry` | delete and snapshot, a bind mount for each path |\n\
         |---|---:|---:|\n\
         | 10 declared paths | 1.00 | 1.50 |\n\
         Not measured in this run.\n\
         Left out of this run.\n"
    );
    Ok(())
}

#[test]
fn outcomes_and_sizes_are_tables_in_words_and_units() -> anyhow::Result<()> {
    assert_eq!(
        page("{{set replace}}\n{{set memory}}\n", &example())?,
        "| one declared file | kept in place | bind mount |\n\
         |---|---:|---:|\n\
         | rename over it | works | fails: busy |\n\
         | peak memory of a reset: size | `carry` |\n\
         |---|---:|\n\
         | 1,000 kept files | 4.4 MiB (4.4 MiB–4.4 MiB, 2×) |\n"
    );
    Ok(())
}

#[test]
fn the_readme_gets_the_plot_and_of_each_set_the_last_row_in_which_the_most_took_part()
-> anyhow::Result<()> {
    let old = "Before\n<!-- made by script/bench -->\nold\n<!-- until here -->\nAfter\n";
    let new = "Before\n\
         <!-- made by script/bench -->\n\
         ![Time of a reset against the number of kept files](docs/benchmarks/kept.svg)\n\
         \n\
         | a reset on btrfs takes so many times as long | `carry` | `cp --reflink=always -a` | `rsync -aAXH` | delete and snapshot, nothing kept | delete and snapshot, a bind mount for each path |\n\
         |---|---:|---:|---:|---:|---:|\n\
         | 1,000,000 kept files | 1.00 | 0.80 | – | 0.90 | – |\n\
         | 10 declared paths | 1.00 | – | – | – | 1.50 |\n\
         <!-- until here -->\n\
         After\n";
    assert_eq!(readme(old, &example())?, new);
    assert_eq!(readme(new, &example())?, new, "made again, it is the same");
    Ok(())
}

#[test]
fn what_means_nothing_is_an_error_that_names_it() {
    for (template, named) in [
        ("{{set keptt}}", "there is no set \"keptt\""),
        ("{{script dd}}", "there is no script \"dd\""),
        ("{{graph kept}}", "the template has {{graph kept}}, which means nothing"),
    ] {
        let said = page(template, &example()).map_err(|why| why.to_string());
        assert_eq!(said, Err(named.to_owned()));
    }
    let said = readme("no marks", &example()).map_err(|why| why.to_string());
    let lacks = "the README lacks the lines <!-- made by script/bench --> and <!-- until here -->, in this order";
    assert_eq!(said, Err(lacks.to_owned()));
}

#[test]
fn what_the_parts_of_one_run_say_of_their_machine_is_said_once() -> anyhow::Result<()> {
    let part = |load: &str, day: &str| {
        Line::Machine(Machine {
            name: "guest".into(),
            asked: "script/bench --vm".into(),
            day: day.into(),
            facts: vec!["Debian in QEMU".into(), load.into()],
            versions: vec![],
        })
    };
    let parts = [
        part("load 1.5", "2026-11-24"),
        part("load 2.0", "2026-11-24"),
        part("load 1.5", "2026-11-25"),
    ];
    assert_eq!(
        page("{{machine guest}}\n", &parts)?,
        "Measured on 2026-11-24 by `script/bench --vm`.\n\n\
         - Debian in QEMU\n- load 1.5\n- load 2.0\n\n\
         Measured on 2026-11-25 by `script/bench --vm`.\n\n\
         - Debian in QEMU\n- load 1.5\n"
    );
    Ok(())
}
