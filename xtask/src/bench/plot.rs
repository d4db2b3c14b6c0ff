//! Plots in SVG: both axes logarithmic, a line for each contestant, the spread as a bar.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::results::{Set, Summary, Unit, bytes, grouped};

/// Told apart by most people who do not see all colours, too (Okabe and Ito), and the same in every plot.
const COLOURS: [(&str, RGBColor); 6] = [
    ("carry", RGBColor(0, 114, 178)),
    ("rollback", RGBColor(86, 180, 233)),
    ("cp", RGBColor(213, 94, 0)),
    ("rsync", RGBColor(204, 121, 167)),
    ("wipe", RGBColor(0, 158, 115)),
    ("bind", RGBColor(230, 159, 0)),
];
const SIZE: (u32, u32) = (840, 480);
const FONT: &str = "sans-serif";

/// A contestant's points.
pub(crate) struct Series<'a> {
    label: &'a str,
    colour: RGBColor,
    points: Vec<(f64, Summary)>,
}

/// Of every contestant with two or more rows that are numbers; none where the rows are no numbers.
pub(crate) fn series(set: &Set) -> Vec<Series<'_>> {
    let point = |at: &str, name| {
        let x = at.parse::<f64>().ok().filter(|x| *x > 0.0)?;
        // What is nothing has no logarithm.
        Some((x, set.summary(at, name).filter(|summary| summary.least > 0.0)?))
    };
    let series = set.contestants().into_iter().map(|(name, label)| Series {
        label,
        colour: COLOURS
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(BLACK, |(_, colour)| *colour),
        points: set.rows().into_iter().filter_map(|at| point(at, name)).collect(),
    });
    series.filter(|series| series.points.len() > 1).collect()
}

/// The plot, or `None` where there is nothing to plot.
pub(crate) fn svg(set: &Set) -> Result<Option<String>> {
    let all = series(set);
    if all.is_empty() {
        return Ok(None);
    }
    let mut text = String::new();
    // The library's error borrows the text that it draws into.
    draw(&mut text, set, &all).map_err(|why| anyhow!("cannot plot: {why}"))?;
    text.push('\n');
    Ok(Some(text))
}

fn draw(
    text: &mut String,
    set: &Set,
    all: &[Series<'_>],
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let flat = || all.iter().flat_map(|series| &series.points);
    let low = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let high = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let (left, right) =
        (low(&mut flat().map(|(x, _)| *x)) / 1.3, high(&mut flat().map(|(x, _)| *x)) * 1.3);
    let bottom = low(&mut flat().map(|(_, y)| y.least)) / 1.5;
    // Room for the legend above the lines.
    let top = high(&mut flat().map(|(_, y)| y.most)) * 1.5;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{} against {}", set.what, set.row), (FONT, 20))
        .margin(14)
        .margin_right(40)
        .x_label_area_size(46)
        .y_label_area_size(78)
        .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())?;
    let seconds = |value: f64| {
        if value < 1.0 { format!("{value}") } else { grouped(&format!("{value:.0}")) }
    };
    let unit = match set.unit {
        Unit::Seconds => "seconds, median and spread",
        Unit::Milliseconds => "milliseconds, median and spread",
        Unit::Bytes => "bytes, median and spread",
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(220, 220, 220))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .x_desc(&*set.row)
        .y_desc(unit)
        .x_label_formatter(&|x| grouped(&format!("{x:.0}")))
        .y_label_formatter(&|y| if set.unit == Unit::Bytes { bytes(*y) } else { seconds(*y) })
        .draw()?;
    for series in all {
        let colour = series.colour;
        let style = colour.stroke_width(2);
        let line = series.points.iter().map(|(x, y)| (*x, y.median));
        chart
            .draw_series(LineSeries::new(line, style).point_size(3))?
            .label(series.label.replace('`', ""))
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], style));
        chart.draw_series(series.points.iter().map(|(x, y)| {
            ErrorBar::new_vertical(*x, y.least, y.median, y.most, colour.filled(), 7)
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 14))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{series, svg};
    use crate::bench::results::Results;

    /// Two contestants with two rows, and one with a single row.
    const TWO: &str = r#"{"kind":"measured","set":"kept","at":"1000","contestant":"carry","values":[0.08,0.07,0.11]}
{"kind":"measured","set":"kept","at":"1000000","contestant":"carry","values":[0.09,0.08,0.1]}
{"kind":"measured","set":"kept","at":"1000","contestant":"cp","values":[0.1,0.3]}
{"kind":"measured","set":"kept","at":"1000000","contestant":"cp","values":[100,110]}
"#;
    const ONE: &str =
        r#"{"kind":"measured","set":"kept","at":"1000","contestant":"rsync","values":[0.2]}"#;

    fn results(text: &str) -> anyhow::Result<Results> {
        let mut results = Results::new(include_str!("../../../docs/benchmarks/sets.toml"))?;
        results.add(text)?;
        Ok(results)
    }

    #[test]
    fn a_plot_has_a_line_for_each_that_has_two_rows_and_is_the_same_every_time()
    -> anyhow::Result<()> {
        let some = results(&format!("{TWO}{ONE}"))?;
        let set = some.set("kept")?;
        let labels: Vec<&str> = series(set).iter().map(|series| series.label).collect();
        assert_eq!(labels, ["`carry`", "`cp --reflink=always -a`"]);
        let drawn = svg(set)?.unwrap_or_default();
        assert!(drawn.matches("<polyline").count() >= 2, "{drawn}");
        assert!(drawn.contains("cp --reflink=always -a"), "{drawn}");
        assert!(!drawn.contains("rsync"), "one row is no line");
        assert_eq!(svg(set)?, Some(drawn));
        assert_eq!(svg(results(ONE)?.set("kept")?)?, None);
        Ok(())
    }
}
