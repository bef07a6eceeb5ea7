//! The full screen: figures at the top, a table of streams or clients below, keys at the bottom.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState};

use super::ask::{self, News, Wish};
use super::model::{Client, Snapshot, Stream};
use super::text::{harmless, lag, rate, size, span};
use super::{TopError, TopOptions};

/// Samples that the lines at the top show at most.
const HISTORY: usize = 240;
/// How long a message stands.
const MESSAGE: Duration = Duration::from_secs(5);
/// Longest time until a key press or news is seen.
const TURN: Duration = Duration::from_millis(100);
/// Lag of a player beyond which it is worth a look, ms.
const LAG_MS: u64 = 3_000;

const MARK: Color = Color::Cyan;
const WARN: Color = Color::Yellow;
const BAD: Color = Color::Red;

/// Shows until `q`.
pub(super) fn run(options: &TopOptions) -> Result<(), TopError> {
    // Before the screen changes: who cannot be reached is said on a plain line.
    ask::once(options)?;
    let (news_in, news) = mpsc::channel();
    let (wishes, wishes_out) = mpsc::channel();
    let asking = options.clone();
    std::thread::spawn(move || ask::serve(&asking, &wishes_out, &news_in));
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, &news, &wishes);
    ratatui::restore();
    result
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    news: &Receiver<News>,
    wishes: &Sender<Wish>,
) -> Result<(), TopError> {
    let mut screen = Screen::default();
    loop {
        while let Ok(new) = news.try_recv() {
            screen.take(new);
        }
        terminal.draw(|frame| screen.draw(frame))?;
        if !event::poll(TURN)? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match screen.key(key) {
            Some(Act::Quit) => return Ok(()),
            // The other side ends only after this one.
            Some(Act::Ask(wish)) => drop(wishes.send(wish)),
            None => {}
        }
    }
}

/// What a key brings about beyond the screen.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Quit,
    Ask(Wish),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum View {
    #[default]
    Streams,
    /// All clients, or those of a stream: its id and its URL.
    Clients(Option<(String, String)>),
}

#[derive(Default)]
struct Screen {
    seen: Option<Snapshot>,
    /// Sent and received, kbit/s.
    rates: [f64; 2],
    history: [VecDeque<u64>; 2],
    view: View,
    /// The column that orders the rows, in each view, and whether upside down.
    order: [(usize, bool); 2],
    /// Id of the row that is picked.
    picked: Option<String>,
    rows: TableState,
    /// What waits for a yes.
    question: Option<(String, Wish)>,
    message: Option<(String, Color, Instant)>,
    help: bool,
}

const STREAM_COLUMNS: [&str; 8] =
    ["STREAM", "PLAYERS", "OUT", "IN", "LIVE FOR", "FPS", "VIDEO", "AUDIO"];
const CLIENT_COLUMNS: [&str; 8] =
    ["CLIENT", "RATE", "LAG", "SKIPS", "FOR", "BYTES", "TYPE", "STREAM"];

impl Screen {
    fn take(&mut self, news: News) {
        match news {
            News::Seen(seen) => {
                let kbps = seen.kbps();
                let since = self.seen.as_ref().and_then(|before| seen.kbps_since(before));
                self.rates = since.unwrap_or(kbps);
                for (history, rate) in self.history.iter_mut().zip(self.rates) {
                    history.push_back(rate as u64);
                    if history.len() > HISTORY {
                        history.pop_front();
                    }
                }
                self.seen = Some(*seen);
            }
            News::Kicked(who) => self.say(format!("{who} was disconnected"), MARK),
            News::Failed(error) => self.say(error.to_string(), BAD),
        }
    }

    fn say(&mut self, text: String, color: Color) {
        self.message = Some((text, color, Instant::now()));
    }

    // -- Keys -------------------------------------------------------------------------------------

    fn key(&mut self, key: KeyEvent) -> Option<Act> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Act::Quit);
        }
        if let Some((_, wish)) = self.question.take() {
            // Anything but a clear yes means no.
            return matches!(key.code, KeyCode::Char('y' | 'Y')).then_some(Act::Ask(wish));
        }
        if std::mem::take(&mut self.help) {
            return None;
        }
        match key.code {
            KeyCode::Char('q') => return Some(Act::Quit),
            KeyCode::Esc if self.view == View::Streams => return Some(Act::Quit),
            KeyCode::Esc | KeyCode::Left => return self.go(View::Streams),
            KeyCode::Tab | KeyCode::Char('c') => {
                return self.go(match self.view {
                    View::Streams => View::Clients(None),
                    View::Clients(_) => View::Streams,
                });
            }
            KeyCode::Enter | KeyCode::Right if self.view == View::Streams => {
                let (id, url) = self.picked_stream().map(|s| (s.id.clone(), s.url.clone()))?;
                return self.go(View::Clients(Some((id, url))));
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up => self.step(-1),
            KeyCode::PageDown => self.step(20),
            KeyCode::PageUp => self.step(-20),
            KeyCode::Home => self.step(isize::MIN / 2),
            KeyCode::End => self.step(isize::MAX / 2),
            KeyCode::Char('s') => {
                let order = &mut self.order[self.view_index()];
                *order = ((order.0 + 1) % STREAM_COLUMNS.len(), false);
            }
            KeyCode::Char('r') => {
                let order = &mut self.order[self.view_index()];
                order.1 = !order.1;
            }
            KeyCode::Char('k') | KeyCode::Delete => self.ask_kick(false),
            KeyCode::Char('K') => self.ask_kick(true),
            KeyCode::Char('?' | 'h') => self.help = true,
            _ => {}
        }
        None
    }

    fn go(&mut self, view: View) -> Option<Act> {
        let stream = match &view {
            View::Streams => None,
            View::Clients(of) => of.as_ref().map(|(id, _)| id.clone()),
        };
        let clients = view != View::Streams;
        self.view = view;
        self.picked = None;
        self.rows = TableState::default();
        Some(Act::Ask(Wish::Look { clients, stream }))
    }

    fn view_index(&self) -> usize {
        usize::from(self.view != View::Streams)
    }

    fn step(&mut self, by: isize) {
        let ids = self.ids();
        let Some(last) = ids.len().checked_sub(1) else { return };
        let now = ids.iter().position(|id| Some(id) == self.picked.as_ref());
        let next = now.map_or(0, |now| (now as isize).saturating_add(by).clamp(0, last as isize));
        self.picked = Some(ids[next as usize].clone());
    }

    fn ids(&self) -> Vec<String> {
        match self.view {
            View::Streams => self.streams().iter().map(|s| s.id.clone()).collect(),
            View::Clients(_) => self.clients().iter().map(|c| c.id.clone()).collect(),
        }
    }

    fn picked_stream(&self) -> Option<&Stream> {
        let picked = self.picked.as_ref()?;
        self.seen.as_ref()?.streams.iter().find(|stream| stream.id == *picked)
    }

    /// `all`: the players of a stream instead of its publisher.
    fn ask_kick(&mut self, all: bool) {
        let asked = match self.view {
            View::Clients(_) => self.picked.as_ref().and_then(|id| {
                let client = self.seen.as_ref()?.clients.iter().find(|c| c.id == *id)?;
                let who = harmless(&client.address());
                let what = if client.publish { "publishes" } else { "plays" };
                let text = format!("Disconnect {who}, which {what} {}?", harmless(&client.url));
                Some((text, Wish::Kick { path: format!("clients/{id}"), who }))
            }),
            View::Streams => self.picked_stream().map(|stream| {
                let url = harmless(&stream.url);
                let (role, who) = match all {
                    true => ("play", format!("each of {} players of {url}", stream.players())),
                    false => ("publish", format!("the publisher of {url}")),
                };
                let path = format!("streams/{}?role={role}", stream.id);
                (format!("Disconnect {who}?"), Wish::Kick { path, who })
            }),
        };
        match asked {
            Some(question) => self.question = Some(question),
            None => self.say("pick a row with the arrow keys first".into(), WARN),
        }
    }

    // -- Rows -------------------------------------------------------------------------------------

    fn streams(&self) -> Vec<&Stream> {
        let Some(seen) = &self.seen else { return Vec::new() };
        let mut streams: Vec<_> = seen.streams.iter().collect();
        let (column, upside_down) = self.order[0];
        // Ids last, so that equal rows do not change places.
        streams.sort_by(|a, b| {
            let largest_first = |of: fn(&Stream) -> u64| of(b).cmp(&of(a));
            let order = match column {
                1 => largest_first(Stream::players),
                2 => largest_first(|s| s.kbps.send_30s),
                3 => largest_first(|s| s.kbps.recv_30s),
                4 => largest_first(|s| s.ringcast.published_ms.unsigned_abs()),
                5 => largest_first(|s| s.ringcast.fps as u64),
                6 => a.video_text().cmp(&b.video_text()),
                7 => a.audio_text().cmp(b.audio_text()),
                _ => a.url.cmp(&b.url),
            };
            order.then_with(|| a.id.cmp(&b.id))
        });
        if upside_down {
            streams.reverse();
        }
        streams
    }

    fn clients(&self) -> Vec<&Client> {
        let (Some(seen), View::Clients(of)) = (&self.seen, &self.view) else { return Vec::new() };
        let ours = |client: &&Client| of.as_ref().is_none_or(|(id, _)| client.stream == *id);
        let mut clients: Vec<_> = seen.clients.iter().filter(ours).collect();
        let (column, upside_down) = self.order[1];
        clients.sort_by(|a, b| {
            let largest_first = |of: fn(&Client) -> u64| of(b).cmp(&of(a));
            let order = match column {
                1 => largest_first(Client::rate),
                2 => largest_first(|c| c.ringcast.lag_ms),
                3 => largest_first(|c| c.ringcast.skips),
                4 => largest_first(|c| c.alive as u64),
                5 => largest_first(|c| c.send_bytes.max(c.recv_bytes)),
                6 => a.kind.cmp(&b.kind),
                7 => a.url.cmp(&b.url),
                _ => a.ip.cmp(&b.ip),
            };
            order.then_with(|| a.id.cmp(&b.id))
        });
        if upside_down {
            clients.reverse();
        }
        clients
    }

    // -- Drawing ----------------------------------------------------------------------------------

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let Some(seen) = self.seen.clone() else {
            frame.render_widget(Paragraph::new("Asking the server"), frame.area());
            return;
        };
        let alerts = (seen.alerts.len() as u16).min(3);
        let tall = frame.area().height >= 16;
        let [top, traffic, warnings, table, bottom] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(if tall { 4 } else { 0 }),
            Constraint::Length(alerts),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.draw_figures(frame, top, &seen);
        if tall {
            self.draw_traffic(frame, traffic);
        }
        draw_alerts(frame, warnings, &seen);
        match self.view.clone() {
            View::Streams => self.draw_streams(frame, table),
            View::Clients(of) => self.draw_clients(frame, table, of),
        }
        self.draw_bottom(frame, bottom);
        if self.help {
            draw_help(frame);
        }
    }

    fn draw_figures(&self, frame: &mut Frame<'_>, area: Rect, seen: &Snapshot) {
        let own = &seen.summaries.own;
        let system = &seen.summaries.system;
        let [players, publishers] = seen.clients();
        let name = Line::from(vec![
            Span::from("ringcast ").fg(MARK).bold(),
            Span::from(format!("{}  ", harmless(&own.version))),
            Span::from(seen.url.clone()).dim(),
            Span::from(format!("  pid {}  up {}", own.pid, span(own.srs_uptime))),
        ]);
        let mut figures = Vec::new();
        let mut add = |label: &'static str, value: String, color: Option<Color>| {
            figures.push(Span::from(format!("{label} ")).dim());
            let style = color.map_or(Style::default(), |color| Style::default().fg(color));
            figures.push(Span::styled(format!("{value}   "), style.add_modifier(Modifier::BOLD)));
        };
        add("streams", seen.streams.len().to_string(), None);
        add("players", players.to_string(), None);
        add("publishers", publishers.to_string(), None);
        add("out", rate(self.rates[0]), None);
        add("in", rate(self.rates[1]), None);
        let figures = Line::from(figures);
        let mut load = Vec::new();
        let mut add = |label: String, part: f64, text: String| {
            load.push(Span::from(format!("{label} ")).dim());
            load.push(Span::styled(format!("{text}   "), hot(part)));
        };
        let cpu = own.cpu_percent;
        add("cpu".into(), 0.0, format!("{:.1} % of a core", cpu * 100.0));
        add("memory".into(), 0.0, size(own.mem_kbyte * 1024));
        for (index, shard) in seen.shards.iter().enumerate().take(8) {
            let busy = shard.busy_permille as f64 / 1000.0;
            add(format!("shard {index}"), busy, format!("{:.0} %", busy * 100.0));
        }
        let machine = system.cpu_percent;
        add("machine".into(), machine, format!("{:.0} %", machine * 100.0));
        frame.render_widget(Paragraph::new(vec![name, figures, Line::from(load)]), area);
    }

    fn draw_traffic(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let halves =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area);
        let [left, right]: [Rect; 2] = halves;
        let colors = [Color::Cyan, Color::Magenta];
        for (index, area) in [left, right].into_iter().enumerate() {
            let title = format!("{} {}", ["out", "in"][index], rate(self.rates[index]));
            let history = self.history[index].make_contiguous();
            let from = history.len().saturating_sub(usize::from(area.width));
            let line = Sparkline::default()
                .block(Block::new().title(Line::from(title).dim()))
                .data(history[from..].iter().copied())
                .style(Style::default().fg(colors[index]));
            frame.render_widget(line, area);
        }
    }

    fn draw_streams(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let streams = self.streams();
        let alerts = self.seen.as_ref().map(|seen| &seen.alerts);
        let rows: Vec<_> = streams
            .iter()
            .map(|stream| {
                let warned = alerts.is_some_and(|all| all.iter().any(|a| a.stream == stream.id));
                let live = match (stream.publish.active, stream.ringcast.published_ms) {
                    (false, _) => "waiting".into(),
                    (true, 0) => "live".into(),
                    (true, ms) => span(ms.unsigned_abs() / 1000),
                };
                let fps = match stream.ringcast.fps {
                    fps if fps > 0.0 => format!("{fps:.0}"),
                    _ => "-".into(),
                };
                let row = Row::new([
                    Cell::from(harmless(&stream.url)),
                    right(stream.players().to_string()),
                    right(rate(stream.kbps.send_30s as f64)),
                    right(rate(stream.kbps.recv_30s as f64)),
                    right(live),
                    right(fps),
                    Cell::from(harmless(&stream.video_text())),
                    Cell::from(harmless(stream.audio_text())),
                ]);
                match (warned, stream.publish.active) {
                    (true, _) => row.style(Style::default().fg(WARN)),
                    (_, false) => row.style(Style::default().dim()),
                    _ => row,
                }
            })
            .collect();
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(9),
            Constraint::Length(12),
            Constraint::Length(12),
            Constraint::Length(10),
            Constraint::Length(5),
            Constraint::Length(15),
            Constraint::Length(6),
        ];
        let heads = self.heads(STREAM_COLUMNS, &[1, 2, 3, 4, 5]);
        let empty = "Nothing is live. Publish to rtmp://<host>/live/<name> and it shows up here.";
        self.draw_rows(frame, area, heads, rows, &widths, empty, "");
    }

    fn draw_clients(&mut self, frame: &mut Frame<'_>, area: Rect, of: Option<(String, String)>) {
        let rows: Vec<_> = self
            .clients()
            .iter()
            .map(|client| {
                let (lag_ms, skips) = (client.ringcast.lag_ms, client.ringcast.skips);
                let row = Row::new([
                    Cell::from(harmless(&client.address())),
                    right(rate(client.rate() as f64)),
                    right(if client.publish { "-".into() } else { lag(lag_ms) }),
                    right(if client.publish { "-".into() } else { skips.to_string() }),
                    right(span(client.alive as u64)),
                    right(size(client.send_bytes.max(client.recv_bytes))),
                    Cell::from(harmless(&client.kind)),
                    Cell::from(harmless(&client.url)),
                ]);
                match (client.publish, lag_ms > LAG_MS || skips > 0) {
                    (true, _) => row.style(Style::default().fg(MARK)),
                    (_, true) => row.style(Style::default().fg(WARN)),
                    _ => row,
                }
            })
            .collect();
        let widths = [
            Constraint::Length(24),
            Constraint::Length(12),
            Constraint::Length(8),
            Constraint::Length(7),
            Constraint::Length(9),
            Constraint::Length(10),
            Constraint::Length(13),
            Constraint::Fill(1),
        ];
        let title = of.map(|(_, url)| format!(" clients of {} ", harmless(&url)));
        let heads = self.heads(CLIENT_COLUMNS, &[1, 2, 3, 4, 5]);
        let title = title.unwrap_or_default();
        self.draw_rows(frame, area, heads, rows, &widths, "Nobody is connected.", &title);
    }

    fn heads(&self, names: [&'static str; 8], numbers: &[usize]) -> Row<'static> {
        let (column, upside_down) = self.order[self.view_index()];
        let heads = names.iter().enumerate().map(|(index, name)| {
            let mark = if upside_down { "^" } else { "v" };
            let sorted = index == column;
            let text = if sorted { format!("{name} {mark}") } else { (*name).to_owned() };
            let cell = if numbers.contains(&index) { right(text) } else { Cell::from(text) };
            let style = Style::default().add_modifier(Modifier::BOLD);
            cell.style(if sorted { style.fg(MARK) } else { style })
        });
        Row::new(heads).style(Style::default().add_modifier(Modifier::UNDERLINED))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one table")]
    fn draw_rows(
        &mut self,
        frame: &mut Frame<'_>,
        area: Rect,
        heads: Row<'static>,
        rows: Vec<Row<'static>>,
        widths: &[Constraint],
        empty: &'static str,
        title: &str,
    ) {
        let ids = self.ids();
        self.rows.select(ids.iter().position(|id| Some(id) == self.picked.as_ref()));
        let none = rows.is_empty();
        let table = Table::new(rows, widths)
            .header(heads)
            .column_spacing(2)
            .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
        let area = match title {
            "" => area,
            title => {
                let [head, rest] =
                    Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
                frame.render_widget(Line::from(title.to_owned()).bold(), head);
                rest
            }
        };
        frame.render_stateful_widget(table, area, &mut self.rows);
        if none && area.height > 1 {
            let below = Rect { y: area.y + 1, height: 1, ..area };
            frame.render_widget(Line::from(empty).dim(), below);
        }
    }

    fn draw_bottom(&mut self, frame: &mut Frame<'_>, area: Rect) {
        if self.message.as_ref().is_some_and(|(.., at)| at.elapsed() > MESSAGE) {
            self.message = None;
        }
        let line = if let Some((text, _)) = &self.question {
            Line::from(vec![
                Span::from(format!("{text} ")).fg(WARN).bold(),
                Span::from("y disconnects, any other key does not"),
            ])
        } else if let Some((text, color, _)) = &self.message {
            Line::from(text.clone()).fg(*color)
        } else {
            let keys: &[(&str, &str)] = match self.view {
                View::Streams => &[
                    ("q", "quit"),
                    ("tab", "clients"),
                    ("enter", "clients of stream"),
                    ("s", "sort"),
                    ("k", "kick publisher"),
                    ("K", "kick players"),
                    ("?", "help"),
                ],
                View::Clients(_) => &[
                    ("q", "quit"),
                    ("tab", "streams"),
                    ("s", "sort"),
                    ("r", "reverse"),
                    ("k", "kick"),
                    ("?", "help"),
                ],
            };
            let spans = keys.iter().flat_map(|(key, what)| {
                [Span::from(format!(" {key} ")).reversed(), Span::from(format!(" {what}  "))]
            });
            Line::from(spans.collect::<Vec<_>>())
        };
        frame.render_widget(line, area);
    }
}

fn draw_alerts(frame: &mut Frame<'_>, area: Rect, seen: &Snapshot) {
    let (shown, rest) = seen.alerts.split_at(seen.alerts.len().min(usize::from(area.height)));
    let more = if rest.is_empty() { String::new() } else { format!("  (and {} more)", rest.len()) };
    let last = shown.len().saturating_sub(1);
    let lines = shown.iter().enumerate().map(|(index, alert)| {
        let what = harmless(&alert.alert).replace('_', " ");
        let more = if index == last { more.as_str() } else { "" };
        let (url, detail) = (harmless(&alert.url), harmless(&alert.detail));
        Line::from(format!("! {url}: {what}, {detail}{more}")).fg(WARN)
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

fn draw_help(frame: &mut Frame<'_>) {
    let lines = [
        ("up, down", "pick a row; page up, page down, home, end as well"),
        ("tab", "between streams and clients"),
        ("enter", "the clients of the picked stream; escape leads back"),
        ("s", "sort by the next column"),
        ("r", "upside down"),
        ("k", "disconnect the picked client or publisher, after a question"),
        ("K", "disconnect all players of the picked stream"),
        ("q", "quit"),
        ("", "Yellow: an alert, or a player that falls behind. LAG is how far a player"),
        ("", "is behind its publisher, SKIPS how often it was moved to the newest"),
        ("", "keyframe because it could not keep up."),
    ];
    let area = frame.area();
    let (width, height) = (area.width.min(80), area.height.min(lines.len() as u16 + 2));
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    let text: Vec<_> = lines
        .iter()
        .map(|(key, what)| {
            Line::from(vec![Span::from(format!(" {key:<10}")).bold(), Span::from(*what)])
        })
        .collect();
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(" Keys ").border_style(Style::default().fg(MARK));
    frame.render_widget(Paragraph::new(text).block(block), place);
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn hot(part: f64) -> Style {
    let style = Style::default().add_modifier(Modifier::BOLD);
    match part {
        part if part > 0.9 => style.fg(BAD),
        part if part > 0.7 => style.fg(WARN),
        _ => style,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::super::model;
    use super::*;

    fn snapshot() -> Snapshot {
        let streams = json!([
            {"id": "vid-a", "url": "/live/few", "clients": 2, "kbps": {"recv_30s": 900,
             "send_30s": 900}, "publish": {"active": true}, "video": {"codec": "H264",
             "width": 1280, "height": 720}, "audio": {"codec": "AAC"}},
            {"id": "vid-b", "url": "/live/ma\u{1b}[2Jny", "clients": 8, "kbps": {"recv_30s": 500,
             "send_30s": 3500}, "publish": {"active": true}},
        ]);
        let clients = json!([
            {"id": "aaaaaaaa", "stream": "vid-a", "ip": "192.0.2.1", "url": "/live/few",
             "type": "rtmp-play", "ringcast": {"port": 4000, "lag_ms": 9000, "skips": 1}},
            {"id": "bbbbbbbb", "stream": "vid-b", "ip": "192.0.2.2", "url": "/live/many"},
        ]);
        let alerts = json!([{"alert": "long_gop", "stream": "vid-a", "url": "/live/few",
            "detail": "20000 ms between keyframes"}]);
        let mut raw = serde_json::Map::new();
        raw.insert("streams".into(), streams);
        raw.insert("clients".into(), clients);
        raw.insert("alerts".into(), alerts);
        Snapshot {
            url: "http://h:1985".into(),
            at: Instant::now(),
            summaries: model::Summaries::default(),
            streams: model::list(&raw, "streams"),
            clients: model::list(&raw, "clients"),
            shards: Vec::new(),
            alerts: model::list(&raw, "alerts"),
            raw,
        }
    }

    fn screen() -> Screen {
        let mut screen = Screen::default();
        screen.take(News::Seen(Box::new(snapshot())));
        screen
    }

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        cells.chunks(usize::from(width)).map(|row| row.concat()).collect()
    }

    fn press(screen: &mut Screen, code: KeyCode) -> Option<Act> {
        screen.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn text(screen: &mut Screen) -> String {
        drawn(screen, 120, 30).join("\n")
    }

    #[test]
    fn streams_are_shown_and_ordered() {
        let mut screen = screen();
        let all = text(&mut screen);
        for part in ["streams 2", "players 8", "publishers 2", "1280x720", "long gop"] {
            assert!(all.contains(part), "{part} is not in\n{all}");
        }
        // No escape reaches the terminal.
        assert!(all.contains("/live/ma[2Jny") && !all.contains('\u{1b}'), "{all}");
        let at = |all: &str, name: &str| all.find(name).unwrap();
        let rows = |screen: &Screen| -> Vec<String> {
            screen.streams().iter().map(|stream| stream.id.clone()).collect()
        };
        assert_eq!(rows(&screen), ["vid-a", "vid-b"]);
        press(&mut screen, KeyCode::Char('s'));
        assert_eq!(rows(&screen), ["vid-b", "vid-a"], "by players");
        let all = text(&mut screen);
        assert!(all.contains("PLAYERS v") && at(&all, "/live/ma") > at(&all, "PLAYERS"), "{all}");
        press(&mut screen, KeyCode::Char('r'));
        assert_eq!(rows(&screen), ["vid-a", "vid-b"]);
    }

    #[test]
    fn kicking_asks_first() {
        let mut screen = screen();
        assert_eq!(press(&mut screen, KeyCode::Char('k')), None);
        assert!(text(&mut screen).contains("pick a row"));
        press(&mut screen, KeyCode::Down);
        press(&mut screen, KeyCode::Char('k'));
        assert!(text(&mut screen).contains("Disconnect the publisher of /live/few?"));
        assert_eq!(press(&mut screen, KeyCode::Char('n')), None);
        assert_eq!(press(&mut screen, KeyCode::Char('y')), None, "nothing is asked any more");
        press(&mut screen, KeyCode::Char('k'));
        let Some(Act::Ask(Wish::Kick { path, who })) = press(&mut screen, KeyCode::Char('y'))
        else {
            panic!("no kick");
        };
        assert_eq!(path, "streams/vid-a?role=publish");
        screen.take(News::Kicked(who));
        assert!(text(&mut screen).contains("the publisher of /live/few was disconnected"));
    }

    #[test]
    fn clients_of_a_stream() {
        let mut screen = screen();
        press(&mut screen, KeyCode::Down);
        let look = Wish::Look { clients: true, stream: Some("vid-a".into()) };
        assert_eq!(press(&mut screen, KeyCode::Enter), Some(Act::Ask(look)));
        let all = text(&mut screen);
        assert!(all.contains("clients of /live/few") && all.contains("192.0.2.1:4000"), "{all}");
        assert!(all.contains("9.0 s") && !all.contains("192.0.2.2"), "{all}");
        press(&mut screen, KeyCode::Down);
        press(&mut screen, KeyCode::Char('k'));
        let kick = press(&mut screen, KeyCode::Char('y'));
        let path = "clients/aaaaaaaa".into();
        let who = "192.0.2.1:4000".into();
        assert_eq!(kick, Some(Act::Ask(Wish::Kick { path, who })));
        let look = Wish::Look { clients: false, stream: None };
        assert_eq!(press(&mut screen, KeyCode::Esc), Some(Act::Ask(look)));
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Some(Act::Quit));
    }

    #[test]
    fn any_size_can_be_drawn() {
        let mut screen = screen();
        for (width, height) in [(1, 1), (20, 5), (40, 12), (80, 24), (300, 100)] {
            drawn(&mut screen, width, height);
            screen.help = true;
            drawn(&mut screen, width, height);
            screen.help = false;
        }
        press(&mut screen, KeyCode::Tab);
        drawn(&mut screen, 30, 8);
        assert!(drawn(&mut Screen::default(), 40, 3)[0].starts_with("Asking"));
    }

    #[test]
    fn picking_stays_at_the_row_and_inside() {
        let mut screen = screen();
        for code in [KeyCode::Up, KeyCode::End, KeyCode::PageDown, KeyCode::Down] {
            press(&mut screen, code);
        }
        assert_eq!(screen.picked.as_deref(), Some("vid-b"));
        press(&mut screen, KeyCode::Char('s'));
        screen.take(News::Seen(Box::new(snapshot())));
        assert_eq!(screen.picked.as_deref(), Some("vid-b"));
        press(&mut screen, KeyCode::Home);
        assert_eq!(screen.picked.as_deref(), Some("vid-b"), "it is the first now");
    }
}
