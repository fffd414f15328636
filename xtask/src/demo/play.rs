//! Plays: does to each agent what its script says, and prints that beside what
//! the host tells of it. Of an agent that was lost and came back it prints what
//! the host has on record.

use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::demo::boxes::{self, Boxes};
use crate::demo::cast::{Act, CAST, Role};
use crate::demo::client::Client;

/// How often the fleet is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the host told, and when that was heard.
pub struct Heard {
    pub at: Instant,
    pub event: Value,
}

/// The company on stage.
pub struct Play<'a> {
    operator: &'a Client,
    boxes: &'a Boxes,
    began: Instant,
    events: Receiver<Heard>,
    players: Vec<Player>,
    /// The fleet when it was last looked at, by id.
    fleet: HashMap<String, Value>,
    looked: Option<Instant>,
}

struct Player {
    role: &'static Role,
    id: String,
    /// The act that is next, and when it is.
    next: usize,
    due: Instant,
    /// When the demo last did something to it.
    touched: Option<Instant>,
    /// When it went offline, and the code of the reason.
    lost: Option<(Instant, String)>,
    /// The processes of its box, as a person was told of them.
    group: Option<Pid>,
}

impl<'a> Play<'a> {
    /// Creates a workspace for each role.
    pub fn new(
        operator: &'a Client,
        boxes: &'a Boxes,
        began: Instant,
        events: Receiver<Heard>,
    ) -> Result<Self> {
        let mut players: Vec<Player> = Vec::new();
        for role in &CAST {
            let parent = players.iter().find(|above| Some(above.role.name) == role.parent);
            let id = create(operator, role, parent.map(|above| above.id.as_str()))?;
            let due = Instant::now();
            let mut player = Player { role, id, next: 0, due, touched: None, lost: None, group: None };
            player.wait();
            players.push(player);
        }
        Ok(Self { operator, boxes, began, events, players, fleet: HashMap::new(), looked: None })
    }

    /// Names by id.
    pub fn names(&self) -> HashMap<String, String> {
        self.players.iter().map(|player| (player.id.clone(), player.role.name.to_owned())).collect()
    }

    /// Does what is due. What the host does not answer is done at the next time around.
    pub fn go_on(&mut self) {
        self.listen();
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            if let Err(error) = self.look() {
                println!("{error:#}");
            }
        }
        let Self { operator, boxes, began, players, fleet, .. } = self;
        for player in players {
            let Some((_, act)) = player.role.script.get(player.next) else { continue };
            if Instant::now() < player.due {
                continue;
            }
            let dir = fleet.get(&player.id).and_then(|row| boxes.of(row));
            let done = match (act, dir) {
                (Act::Say(control), Some(dir)) => {
                    boxes::tell(&dir, control).map(|()| format!("control file: {control}"))
                }
                (Act::Kill, Some(dir)) => match boxes::group_of(&dir) {
                    Some(group) => boxes::kill(group).map(|()| killing(group)),
                    None => continue,
                },
                // Without a box for a moment: it is its turn when it has one again.
                (Act::Say(_) | Act::Kill, None) => continue,
                (Act::Command(command, body), _) => command_of(operator, &player.id, command, body),
            };
            let said = done.unwrap_or_else(|error| format!("{error:#}"));
            say(*began, player.role.name, &format!("* {said}"));
            player.touched = Some(Instant::now());
            player.next = (player.next + 1) % player.role.script.len();
            player.wait();
        }
    }

    /// Follows those that go offline until they are back.
    fn listen(&mut self) {
        for Heard { at, event } in self.events.try_iter() {
            let found = self.players.iter_mut().find(|player| event["workspace_id"] == *player.id);
            let Some(player) = found else { continue };
            match event["to"].as_str() {
                Some("offline") => {
                    let why = event["reason"]["code"].as_str().unwrap_or("no reason");
                    player.lost = Some((at, why.to_owned()));
                }
                Some("online") => {
                    let Some((lost, why)) = player.lost.take() else { continue };
                    let touched = player.touched.take().filter(|touched| *touched < lost);
                    let after =
                        touched.map(|touched| format!("{:.1} s later ", (lost - touched).as_secs_f64()));
                    let seen = back(self.operator, &player.id).unwrap_or_else(|error| format!("{error:#}"));
                    let said = format!(
                        "* looks: {}offline, {why}; {seen} after {:.1} s",
                        after.unwrap_or_default(),
                        (at - lost).as_secs_f64()
                    );
                    say(self.began, player.role.name, &said);
                }
                _ => {}
            }
        }
    }

    fn look(&mut self) -> Result<()> {
        let rows = self.operator.workspaces()?;
        for row in &rows {
            self.boxes.link(row)?;
            self.offer(row);
        }
        self.fleet = rows.into_iter().filter_map(|row| Some((row["id"].as_str()?.to_owned(), row))).collect();
        // Whoever was removed leaves the stage.
        self.players.retain(|player| self.fleet.contains_key(&player.id));
        Ok(())
    }

    /// Tells how to kill an agent that nobody plays with.
    fn offer(&mut self, row: &Value) {
        let mut players = self.players.iter_mut();
        let idle = |role: &Role| role.script.is_empty() && role.parent.is_none();
        let Some(player) = players.find(|p| row["id"] == *p.id && idle(p.role)) else { return };
        let group = self.boxes.of(row).and_then(|dir| boxes::group_of(&dir));
        if let Some(group) = group.filter(|group| player.group != Some(*group)) {
            player.group = Some(group);
            say(self.began, player.role.name, &format!("* yours to kill: {}", killing(group)));
        }
    }
}

/// The command for a shell.
fn killing(group: Pid) -> String {
    format!("kill -9 -- -{group}")
}

/// What the host has on record of how a workspace came back.
fn back(operator: &Client, id: &str) -> Result<String> {
    let row = operator.get(&format!("/workspaces/{id}"))?.body;
    let claims = operator.get(&format!("/workspaces/{id}/claims"))?.body;
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let (claim, instance) = (&claims[0], text(&row["instance_id"]));
    Ok(format!(
        "{} by {}, {}, claim {}; {} in box {}",
        text(&claim["kind"]),
        text(&claim["actor"]),
        text(&claim["state"]),
        text(&claim["id"]),
        text(&row["status"]),
        instance.strip_prefix(id).map_or(instance.as_str(), |epoch| epoch.trim_start_matches('-')),
    ))
}

impl Player {
    fn wait(&mut self) {
        let pause = self.role.script.get(self.next).map_or(0, |(pause, _)| *pause);
        self.due = Instant::now() + Duration::from_secs(pause);
    }
}

fn create(operator: &Client, role: &Role, parent: Option<&str>) -> Result<String> {
    let body = json!({
        "name": role.name, "kind": role.kind, "parent_id": parent,
        "provider": boxes::PROVIDERS[0], "labels": { "demo": "yes" },
    });
    let answer = operator.post("/workspaces", &body)?;
    match (answer.code, answer.body["id"].as_str()) {
        (201, Some(id)) => Ok(id.to_owned()),
        _ => bail!("the host did not create {}: {}", role.name, answer.shown()),
    }
}

fn command_of(operator: &Client, id: &str, command: &str, body: &str) -> Result<String> {
    let answer = operator.post(&format!("/workspaces/{id}/{command}"), &serde_json::from_str(body)?)?;
    let shown = match (answer.code, answer.body["id"].as_str()) {
        (202, Some(claim)) => format!("claim {claim}"),
        _ => answer.shown(),
    };
    let body = if body == "{}" { String::new() } else { format!(" {body}") };
    Ok(format!("operator: {command}{body}: {shown}"))
}

/// Prints an event beside the name of whose it is; of the whole fleet, with the scope and the numbers.
pub fn tell_event(began: Instant, names: &HashMap<String, String>, event: &Value) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = text(&event["workspace_id"]);
    let name = id.map_or("the fleet".to_owned(), |id| names.get(&id).cloned().unwrap_or(id));
    let what = match (text(&event["from"]), text(&event["to"])) {
        (Some(from), Some(to)) => format!("{from} -> {to}"),
        (None, Some(to)) => to,
        _ => text(&event["type"]).unwrap_or_default(),
    };
    let why = text(&event["reason"]["code"]).or(text(&event["cause"])).unwrap_or_default();
    say(began, &name, format!("{what:<28} {why}").trim_end());
    let detail = text(&event["reason"]["detail"]).filter(|_| event["to"].is_null());
    let decision = text(&event["decision_id"]).map(|id| format!("decision {id}"));
    for more in detail.into_iter().chain(decision) {
        say_more(&more);
    }
}

/// Columns of a line, at most.
const COLUMNS: usize = 100;
/// Columns before what is said: the time and the name.
const MARGIN: usize = 26;

fn say(began: Instant, name: &str, what: &str) {
    let mut lines = folded(what).into_iter();
    println!("{:>6.1}s  {name:<15}  {}", began.elapsed().as_secs_f64(), lines.next().unwrap_or_default());
    for line in lines {
        println!("{:MARGIN$}{line}", "");
    }
}

/// What belongs to the line before.
fn say_more(what: &str) {
    for line in folded(what) {
        println!("{:MARGIN$}{line}", "");
    }
}

fn folded(text: &str) -> Vec<std::borrow::Cow<'_, str>> {
    textwrap::wrap(text, COLUMNS - MARGIN)
}
