//! Owns an answer that costs money, on its way to the agent: read beside it, held to what was reserved,
//! settled before its last piece goes on, and cut with a valid error where no more can be had.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body::Frame;
use tokio::time::Sleep;

use super::cut::{Seam, cut_at};
use super::hold::{Cost, Hold, Settling};
use super::spending::{Drain, ReadOn};
use super::tranche::{IN_HAND, Tranche, Verdict, Want};
use crate::budget::ledger::{Ending, NotReserved};
use crate::meter::call::Call;
use crate::meter::hide_usage::HideUsage;
use crate::meter::reader::Reader;
use crate::meter::reading::Reading;
use crate::types::charge::Need;
use crate::types::model_api::ModelApi;

/// How long more budget is waited for, while the stream goes on with what it has.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long at most it stands still for more once it has come as far as it may: the provider makes on meanwhile,
/// and in no more of that than a quarter of what the stream keeps in hand.
const LAST_PATIENCE: Duration = Duration::from_millis(250);
/// What is in buffers is read in this time.
const LEAST_READ_ON: Duration = Duration::from_millis(5);
/// How much of an event is let through after a cut is due, so that the error comes behind a whole one.
const LONGEST_EVENT: usize = 1 << 20;

/// What watches one answer.
pub struct Meter {
    /// Until it is settled.
    open: Option<Open>,
    hide: Option<HideUsage>,
    seam: Seam,
    waiting: Waiting,
    /// What goes to the agent next.
    out: Option<Frame<Bytes>>,
    /// What goes behind all else.
    trailers: Option<Frame<Bytes>>,
    cut: Cut,
    ended: bool,
    cost: Option<Cost>,
}

struct Open {
    hold: Hold,
    reader: Reader,
    tranche: Tranche,
    /// When it was last known to have enough, and the tokens that had been made by then.
    since: Option<(Instant, u64)>,
}

impl Open {
    /// How long this answer takes for what it keeps in hand, at its pace of late.
    fn time_in_hand(&self) -> Duration {
        let Some((since, before)) = self.since else {
            return Duration::MAX;
        };
        let made = self.reader.progress().produced.saturating_sub(before);
        let pace = IN_HAND as f64 / made.max(1) as f64;
        Duration::try_from_secs_f64(since.elapsed().as_secs_f64() * pace).unwrap_or(Duration::MAX)
    }
}

/// What must come first.
enum Waiting {
    Nothing,
    Extension(Extension),
    Settling(Settling),
}

/// More budget that was asked for.
struct Extension {
    asking: BoxFuture<'static, Result<(), NotReserved>>,
    more: Need,
    stands: Stands,
}

/// Whether a stream stands still for what it asked for.
enum Stands {
    /// It goes on with what it has.
    No,
    /// Until then, since it has come as far as it may.
    Until(Pin<Box<Sleep>>),
    /// Until it is told, which is at once.
    ForTheAnswer,
}

/// Whether the answer is to be cut.
enum Cut {
    No,
    /// As soon as the event under way is whole; with this error, after this many octets of it.
    Due(Bytes, usize),
    /// What the provider has under way is read for what it costs; then it is told.
    ReadingOn(Box<ReadingOn>),
    /// The error has been told.
    Done,
    /// It cannot be told within the answer: it breaks off.
    Break,
}

/// The last moment of an answer that is cut.
struct ReadingOn {
    /// What the agent gets at the end of it; nothing where no error can be told.
    last: Option<Bytes>,
    time: Pin<Box<Sleep>>,
    _room: Drain,
}

/// What the body is to do next.
pub enum Turn {
    /// Read the origin's next frame.
    Read,
    /// Hand this on.
    Pass(Frame<Bytes>),
    /// End in good order.
    End,
    /// End after the error that was told, and leave the origin.
    Cut,
    /// Break off.
    Break,
}

impl Meter {
    /// Watches the answer with this head.
    pub fn new(
        hold: Hold,
        reader: Reader,
        tranche: Tranche,
        api: ModelApi,
        headers: &HeaderMap,
        hide: Option<HideUsage>,
    ) -> Self {
        Self {
            open: Some(Open {
                hold,
                reader,
                tranche,
                since: None,
            }),
            hide,
            seam: Seam::new(api, headers),
            waiting: Waiting::Nothing,
            out: None,
            trailers: None,
            cut: Cut::No,
            ended: false,
            cost: None,
        }
    }

    /// What comes next, once what must come first has come.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        loop {
            if let Waiting::Settling(settling) = &mut self.waiting {
                ready!(settling.as_mut().poll(cx));
                self.waiting = Waiting::Nothing;
            }
            if let Some(frame) = self.out.take() {
                return Poll::Ready(Turn::Pass(frame));
            }
            if self.ended
                && let Some(trailers) = self.trailers.take()
            {
                return Poll::Ready(Turn::Pass(trailers));
            }
            if let Waiting::Extension(extension) = &mut self.waiting {
                let more = extension.more;
                if let Poll::Ready(outcome) = extension.asking.as_mut().poll(cx) {
                    self.waiting = Waiting::Nothing;
                    self.extended(outcome, more);
                    continue;
                }
                match &mut extension.stands {
                    Stands::ForTheAnswer => return Poll::Pending,
                    // It keeps its place among those who wait until then; asked at once, the books say why not.
                    Stands::Until(until) => {
                        ready!(until.as_mut().poll(cx));
                        self.ask(more, Duration::ZERO, Stands::ForTheAnswer);
                        continue;
                    }
                    Stands::No => {
                        if self.stand_still() {
                            continue;
                        }
                    }
                }
            }
            if let Cut::ReadingOn(reading_on) = &mut self.cut
                && reading_on.time.as_mut().poll(cx).is_ready()
            {
                self.tell();
                continue;
            }
            return Poll::Ready(match (&self.cut, self.ended) {
                (Cut::Break, _) => Turn::Break,
                (Cut::Done, _) => Turn::Cut,
                (_, true) => Turn::End,
                _ => Turn::Read,
            });
        }
    }

    /// The origin's next frame. Behind trailers comes [the end](Self::end).
    pub fn take(&mut self, frame: Frame<Bytes>) {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => {
                self.trailers = Some(trailers);
                return;
            }
        };
        if let Cut::ReadingOn(_) = self.cut {
            return self.drain(&data);
        }
        if let Cut::Due(..) = self.cut {
            return self.take_to_seam(data);
        }
        self.seam.pass(&data);
        let mut whole = false;
        let mut wanted = None;
        if let Some(open) = &mut self.open {
            open.reader.feed(&data);
            let progress = open.reader.progress();
            whole = progress.complete;
            if progress.produced > 0 {
                open.since
                    .get_or_insert_with(|| (Instant::now(), progress.produced));
            }
            let asks = matches!(self.waiting, Waiting::Extension(_));
            if !whole && !asks {
                match open.tranche.next(&progress, &open.hold) {
                    Some(Want::Less(need)) => open.hold.shrink(need),
                    Some(Want::More(need)) => wanted = Some(need),
                    None => {}
                }
            }
        }
        if whole {
            self.settle(Ending::Complete);
        }
        if let Some(more) = wanted {
            self.ask(more, PATIENCE, Stands::No);
        }
        self.pass(data);
    }

    /// The next of an answer that is cut at the end of the event under way.
    fn take_to_seam(&mut self, data: Bytes) {
        // It was produced, whether or not the agent gets to see all of it.
        self.drain(&data);
        if self.is_whole() {
            self.cut = Cut::No;
            self.settle(Ending::Complete);
            return self.pass(data);
        }
        let end = self.seam.first_end(&data);
        let Cut::Due(error, passed) = &mut self.cut else {
            return;
        };
        *passed += data.len();
        let is_too_long = *passed > LONGEST_EVENT;
        match end {
            Some(end) => {
                let error = error.clone();
                let last = self.shown(data.slice(..end));
                self.leave(Some(cut_at(&last, last.len(), &error)));
            }
            None => {
                if is_too_long {
                    self.leave(None);
                }
                self.pass(data);
            }
        }
    }

    /// The origin's body is at its end.
    pub fn end(&mut self) {
        if let Cut::ReadingOn(_) = self.cut {
            return self.tell();
        }
        let rest = self.hide.take().map(HideUsage::finish).unwrap_or_default();
        if !rest.is_empty() {
            let out = self.out.take().and_then(|frame| frame.into_data().ok());
            let out = out.unwrap_or_default();
            self.out = Some(Frame::data(cut_at(&out, out.len(), &rest)));
        }
        self.settle(Ending::Complete);
        self.ended = true;
    }

    /// The origin broke off. Says whether that is no matter, the answer being cut anyway.
    pub fn broke(&mut self) -> bool {
        let cut = matches!(self.cut, Cut::ReadingOn(_));
        if cut {
            self.tell();
        }
        cut
    }

    /// It ends before its end. Nobody waits for the settlement.
    pub fn abandon(&mut self, ending: Ending) {
        let is_cut = matches!(self.cut, Cut::Due(..) | Cut::ReadingOn(_));
        self.settle(if is_cut { Ending::Cut } else { ending });
        if let Waiting::Settling(settling) = std::mem::replace(&mut self.waiting, Waiting::Nothing)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(settling);
        }
    }

    /// What it came to, once.
    pub fn cost(&mut self) -> Option<Cost> {
        self.cost.take()
    }

    /// Whether the answer goes on as long as the origin said.
    pub fn keeps_length(&self) -> bool {
        self.hide.is_none() && matches!(self.cut, Cut::No)
    }

    /// Whether its last piece tells that it was cut.
    pub fn is_cut(&self) -> bool {
        matches!(self.cut, Cut::Done)
    }

    /// Whether nothing is left to be handed on.
    pub fn is_idle(&self) -> bool {
        self.out.is_none()
            && self.trailers.is_none()
            && matches!(self.waiting, Waiting::Nothing)
            && self.open.is_none()
            && self.hide.is_none()
    }

    /// Room to read on in after the agent has left, and for how long.
    pub fn drain_room(&self) -> Option<(Drain, Duration)> {
        let open = self.open.as_ref()?;
        let whole = open.hold.call().is_some_and(Call::is_billed_whole);
        let far = match whole {
            true => ReadOn::ToItsEnd,
            false => ReadOn::UnderWay,
        };
        Some((open.hold.drain(far)?, far.time()))
    }

    /// Reads on without handing anything on.
    pub fn drain(&mut self, data: &[u8]) {
        if let Some(open) = &mut self.open {
            open.reader.feed(data);
        }
    }

    fn pass(&mut self, data: Bytes) {
        let shown = self.shown(data);
        if !shown.is_empty() {
            self.out = Some(Frame::data(shown));
        }
    }

    /// What of it the agent gets to see.
    fn shown(&mut self, data: Bytes) -> Bytes {
        match &mut self.hide {
            Some(hide) => hide.feed(data),
            None => data,
        }
    }

    fn settle(&mut self, ending: Ending) {
        let Some(Open {
            mut hold, reader, ..
        }) = self.open.take()
        else {
            return;
        };
        let progress = reader.progress();
        hold.outran(&progress, ending);
        let ending = match ending {
            Ending::Cut => ending,
            _ if progress.complete => Ending::Complete,
            _ => ending,
        };
        let (reading, said) = reader.conclude();
        let ending = match reading {
            Reading::Failed => Ending::Refused,
            _ => ending,
        };
        let (settling, mut cost) = hold.read(reading, ending);
        if let Some(notes) = &mut cost.notes {
            notes.said = said;
        }
        self.cost = Some(cost);
        self.waiting = Waiting::Settling(settling);
    }

    fn is_whole(&self) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| open.reader.progress().complete)
    }

    /// Asks for more.
    fn ask(&mut self, more: Need, patience: Duration, stands: Stands) {
        if let Some(open) = &self.open {
            self.waiting = Waiting::Extension(Extension {
                asking: open.hold.extend(more, patience),
                more,
                stands,
            });
        }
    }

    /// Stands still for what was asked for, if the answer has come as far as it may without.
    fn stand_still(&mut self) -> bool {
        let (Some(open), Waiting::Extension(extension)) = (&self.open, &mut self.waiting) else {
            return false;
        };
        let is_used_up = open.tranche.is_used_up(&open.reader.progress());
        if is_used_up {
            let time = LAST_PATIENCE.min(open.time_in_hand() / 4);
            extension.stands = Stands::Until(Box::pin(tokio::time::sleep(time)));
        }
        is_used_up
    }

    fn extended(&mut self, outcome: Result<(), NotReserved>, more: Need) {
        let Some(open) = &mut self.open else {
            return;
        };
        let cause = match outcome {
            Ok(()) => {
                open.hold.grew(more);
                open.tranche.grew();
                open.since = Some((Instant::now(), open.reader.progress().produced));
                return;
            }
            Err(cause) => cause,
        };
        if open.tranche.refused(&open.reader.progress(), &cause) == Verdict::GoOn {
            return;
        }
        let refusal = open.hold.cut(cause);
        let error = self.seam.error(&refusal.text(), open.hold.id());
        if !self.seam.can_tell() {
            self.leave(None);
        } else if self.seam.is_at_end() {
            let rest = self.hide.take().map(HideUsage::finish).unwrap_or_default();
            self.leave(Some(cut_at(&rest, rest.len(), &error)));
        } else {
            self.cut = Cut::Due(error, 0);
        }
    }

    /// The agent gets no more than this. What the provider has sent by now was made, and is charged: it is read on
    /// for a moment before the origin is left.
    fn leave(&mut self, last: Option<Bytes>) {
        let open = self.open.as_ref();
        let room = open.and_then(|open| Some((open.hold.drain(ReadOn::UnderWay)?, open)));
        match room {
            Some((room, open)) => {
                let time = ReadOn::UnderWay.time().min(open.time_in_hand() / 8);
                self.cut = Cut::ReadingOn(Box::new(ReadingOn {
                    last,
                    time: Box::pin(tokio::time::sleep(time.max(LEAST_READ_ON))),
                    _room: room,
                }));
            }
            None => self.end_with(last),
        }
    }

    /// What was under way has been read.
    fn tell(&mut self) {
        if let Cut::ReadingOn(reading_on) = &mut self.cut {
            let last = reading_on.last.take();
            self.end_with(last);
        }
    }

    fn end_with(&mut self, last: Option<Bytes>) {
        self.settle(Ending::Cut);
        self.cut = match last {
            Some(last) => {
                self.out = Some(Frame::data(last));
                Cut::Done
            }
            None => Cut::Break,
        };
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.abandon(Ending::AgentLeft);
    }
}
