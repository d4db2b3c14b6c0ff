//! What the tool says while it works, for the journal or for a person.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Sends what is said to standard error. Under systemd each line begins with its level, so
/// that the journal and the console show what is wrong as such (sd-daemon(3)).
pub(super) fn start() {
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(Level::INFO)
        .event_format(Lines { to_journal })
        .init();
}

struct Lines {
    to_journal: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (number, word) = match *event.metadata().level() {
            Level::ERROR => (3, "error: "),
            Level::WARN => (4, "warning: "),
            Level::INFO => (6, ""),
            Level::DEBUG | Level::TRACE => (7, ""),
        };
        let mut text = String::new();
        context.field_format().format_fields(Writer::new(&mut text), event)?;
        // Every line of it: the journal takes each for a message of its own.
        for line in format!("{word}{text}").lines() {
            if self.to_journal {
                write!(writer, "<{number}>")?;
            }
            writeln!(writer, "{line}")?;
        }
        Ok(())
    }
}
