//! What the engine does about the words of the kernel command line: first what was interrupted, then
//! what is asked.

use super::*;
use crate::cmdline::Which;
use crate::own::state::Restore;

/// A volume that may have been interrupted, and writes down what it is asked to do.
#[derive(Clone)]
struct Volumes(Rc<RefCell<Vec<State>>>, Log);

#[derive(Clone)]
struct State {
    interrupted: bool,
    /// The generation that it was restored from, and the boot in which it was.
    restored: Option<(u64, &'static str)>,
}

struct Asking {
    volumes: Volumes,
    index: usize,
    asked: Asked,
    name: String,
}

impl Asking {
    fn say(&self, what: &str) {
        self.volumes.1.borrow_mut().push(format!("{} {what}", self.index));
    }
}

impl OpenVolume for Asking {
    fn plan(&mut self) -> anyhow::Result<VolumePlan> {
        let state = self.volumes.0.borrow()[self.index].clone();
        let restore = state.restored.map(|(of, boot)| Restore { of, boot: Some(boot.to_owned()) });
        let mount_point = PathBuf::from(self.index.to_string());
        let nothing = VolumePlan { restore, ..VolumePlan::nothing(&mount_point, "it".into(), 1) };
        let does = match self.asked {
            _ if state.interrupted => Does::Reset,
            Asked::Off => return Ok(nothing),
            Asked::Reset => Does::Reset,
            Asked::Snapshot => Does::Snapshot,
            Asked::Restore(Which::Number(9)) => anyhow::bail!("made to be missing"),
            Asked::Restore(_) => Does::Restore(1),
        };
        let name = if state.interrupted { "completed".into() } else { self.asked.to_string() };
        let step = Planned { phase: Phase::Commit, step: described(&name) };
        self.name = name;
        Ok(VolumePlan { does, resumes: state.interrupted, steps: vec![step], ..nothing })
    }

    fn execute(&mut self, step: usize) -> anyhow::Result<Option<Outcome>> {
        assert_eq!(step, 0);
        self.say(&self.name);
        self.volumes.0.borrow_mut()[self.index].interrupted = false;
        Ok(None)
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn standing(&self) -> Standing {
        Standing::Previous
    }

    fn close(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

const WHOLE: State = State { interrupted: false, restored: None };
const INTERRUPTED: State = State { interrupted: true, restored: None };

fn restored(interrupted: bool, of: u64, boot: &'static str) -> State {
    State { interrupted, restored: Some((of, boot)) }
}

fn done(states: &[State], asked: Asked) -> (Vec<String>, Ending) {
    let (log, ended) = ended(states, Options { asked, ..OPTIONS });
    (log, ended.report.outcome)
}

fn ended(states: &[State], options: Options) -> (Vec<String>, Ended) {
    let volumes = Volumes(Rc::new(RefCell::new(states.to_vec())), Log::default());
    let volume = |index: usize| config::Volume {
        mount_point: index.to_string().into(),
        backing: config::Backing::Zfs(config::Zfs {
            dataset: "it".into(),
            blank: None,
            newer_snapshots: config::NewerSnapshots::Refuse,
        }),
        strategy: config::Strategy::Carry,
        keep: None,
        rules: Rules::default(),
    };
    let config = Config {
        on_failure: config::OnFailure::Boot,
        volumes: (0..states.len()).map(volume).collect(),
    };
    let open = |volume: &config::Volume, options: Options| -> anyhow::Result<Box<dyn OpenVolume>> {
        let index = volume.mount_point.to_str().context("no text")?.parse()?;
        Ok(Box::new(Asking {
            volumes: volumes.clone(),
            index,
            asked: options.asked,
            name: String::new(),
        }))
    };
    let ended = reset_with(&config, options, &open);
    (volumes.1.take(), ended)
}

const PREVIOUS: Asked = Asked::Restore(Which::Previous);
const SEVEN: Asked = Asked::Restore(Which::Number(7));

#[test]
fn off_completes_what_was_interrupted_and_touches_nothing_else() {
    assert_eq!(done(&[WHOLE, WHOLE], Asked::Off), (vec![], Ending::Off));
    let expected = (vec!["1 completed".to_owned()], Ending::Off);
    assert_eq!(done(&[WHOLE, INTERRUPTED], Asked::Off), expected);
}

#[test]
fn off_says_that_nothing_is_reset_only_where_nothing_was_completed() {
    let words = |states: &[State]| {
        let (_, ended) = ended(states, Options { asked: Asked::Off, ..OPTIONS });
        ended.report.in_words()
    };
    let nothing = "nothing is reset: the kernel command line says darlings=off";
    assert_eq!(words(&[WHOLE, WHOLE]).as_deref(), Some(nothing));
    assert_eq!(
        words(&[WHOLE, INTERRUPTED]).as_deref(),
        Some(
            "what an interrupted run had left was completed, and nothing else is reset: the kernel \
             command line says darlings=off"
        )
    );
}

#[test]
fn what_was_interrupted_is_completed_before_what_is_asked_is_done() {
    for (asked, ending) in [
        (Asked::Snapshot, Ending::Snapshot),
        (PREVIOUS, Ending::Restored),
        (SEVEN, Ending::Restored),
    ] {
        let then = [format!("0 {asked}"), format!("1 {asked}")];
        assert_eq!(done(&[WHOLE, WHOLE], asked), (then.to_vec(), ending), "{asked}");
        let all = [&["1 completed".to_owned()], then.as_slice()].concat();
        assert_eq!(done(&[WHOLE, INTERRUPTED], asked), (all, ending), "{asked}");
    }
}

#[test]
fn an_interrupted_restore_that_is_asked_for_again_is_not_done_twice() {
    let only = |log: &[&str]| log.iter().map(ToString::to_string).collect::<Vec<_>>();
    // The first is complete, the second was half way, and the third was not begun.
    let states = [restored(false, 7, "now"), restored(true, 7, "now"), WHOLE];
    assert_eq!(done(&states, PREVIOUS).0, only(&["1 completed", "2 restore:previous"]));
    assert_eq!(done(&states, SEVEN).0, only(&["1 completed", "2 restore:7"]));
    assert_eq!(done(&states[..2], SEVEN), (only(&["1 completed"]), Ending::Restored));
    // Another generation is asked for, or another run restored.
    let five = Asked::Restore(Which::Number(5));
    assert_eq!(done(&states[..2], five).0, only(&["1 completed", "0 restore:5", "1 restore:5"]));
    let states = [restored(false, 7, "before"), restored(true, 7, "now")];
    assert_eq!(done(&states, SEVEN).0, only(&["1 completed", "0 restore:7"]));
    // None was interrupted: to restore the previous one again is to undo it.
    let states = [restored(false, 7, "now")];
    assert_eq!(done(&states, PREVIOUS).0, only(&["0 restore:previous"]));
}

#[test]
fn what_cannot_be_restored_leaves_all_as_they_were_and_says_what_was_asked() {
    let asked = Asked::Restore(Which::Number(9));
    let (log, ended) = ended(&[WHOLE], Options { asked, ..OPTIONS });
    assert_eq!(log, Vec::<String>::new());
    assert_eq!((ended.report.outcome, ended.report.asked), (Ending::Failed, Some(asked)));
    assert_eq!(
        ended.report.error.as_deref(),
        Some("no volume was restored; all are as they were: 0: made to be missing")
    );
    let (_, ended) = super::asked::ended(&[WHOLE], Options { asked, dry_run: true, ..OPTIONS });
    assert_eq!(
        ended.report.error.as_deref(),
        Some("restore:9 would not start: 0: made to be missing")
    );
}

#[test]
fn a_dry_run_of_a_word_plans_only_to_complete_what_was_interrupted() {
    let options = Options { asked: SEVEN, dry_run: true, ..OPTIONS };
    let (log, ended) = ended(&[INTERRUPTED, WHOLE], options);
    assert_eq!(log, Vec::<String>::new());
    let resumes: Vec<bool> = ended.report.volumes.iter().map(|it| it.plan.resumes).collect();
    assert_eq!((ended.report.outcome, resumes), (Ending::DryRun, vec![true, false]));
}
