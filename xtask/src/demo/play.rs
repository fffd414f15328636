//! Plays: does to each agent what its script says, and prints that beside what
//! the host tells of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::demo::boxes::{self, Boxes};
use crate::demo::cast::{Act, CAST, Role};
use crate::demo::client::Client;

/// How often the fleet is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The company on stage.
pub struct Play<'a> {
    operator: &'a Client,
    boxes: &'a Boxes,
    began: Instant,
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
}

impl<'a> Play<'a> {
    /// Creates a workspace for each role.
    pub fn new(operator: &'a Client, boxes: &'a Boxes, began: Instant) -> Result<Self> {
        let mut players: Vec<Player> = Vec::new();
        for role in &CAST {
            let parent = players.iter().find(|above| Some(above.role.name) == role.parent);
            let id = create(operator, role, parent.map(|above| above.id.as_str()))?;
            let mut player = Player { role, id, next: 0, due: Instant::now() };
            player.wait();
            players.push(player);
        }
        Ok(Self { operator, boxes, began, players, fleet: HashMap::new(), looked: None })
    }

    /// Names by id.
    pub fn names(&self) -> HashMap<String, String> {
        self.players.iter().map(|player| (player.id.clone(), player.role.name.to_owned())).collect()
    }

    /// Does what is due. What the host does not answer is done at the next time around.
    pub fn go_on(&mut self) {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            if let Err(error) = self.look() {
                println!("{error:#}");
            }
        }
        let Self { operator, boxes, began, players, fleet, .. } = self;
        players.retain_mut(|player| {
            let Some((_, act)) = player.role.script.get(player.next) else { return true };
            if Instant::now() < player.due {
                return true;
            }
            let (row, name) = (fleet.get(&player.id), player.role.name);
            let done = match act {
                // Without a box for a moment: it is told when it has one again.
                Act::Say(control) => match row.and_then(|row| boxes.of(row)) {
                    Some(dir) => boxes::tell(&dir, control).map(|()| format!("control file: {control}")),
                    None => return true,
                },
                Act::Command(command, body) => command_of(operator, &player.id, command, body),
            };
            let said = done.unwrap_or_else(|error| format!("{error:#}"));
            say(*began, name, &format!("* {said}"));
            player.next = (player.next + 1) % player.role.script.len();
            player.wait();
            true
        });
    }

    fn look(&mut self) -> Result<()> {
        let rows = self.operator.workspaces()?;
        for row in &rows {
            self.boxes.link(row)?;
        }
        self.fleet = rows.into_iter().filter_map(|row| Some((row["id"].as_str()?.to_owned(), row))).collect();
        // Whoever was removed leaves the stage.
        self.players.retain(|player| self.fleet.contains_key(&player.id));
        Ok(())
    }
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
    let body = if body == "{}" { "" } else { body };
    Ok(format!("{:<55} {shown}", format!("operator: {command} {body}")))
}

/// Prints an event beside the name of whose it is.
pub fn tell_event(began: Instant, names: &HashMap<String, String>, event: &Value) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = text(&event["workspace_id"]).unwrap_or_default();
    let name = names.get(&id).unwrap_or(&id);
    let what = match (text(&event["from"]), text(&event["to"])) {
        (Some(from), Some(to)) => format!("{from} -> {to}"),
        (None, Some(to)) => to,
        _ => text(&event["type"]).unwrap_or_default(),
    };
    let why = text(&event["reason"]["code"]).or(text(&event["cause"])).unwrap_or_default();
    let decision = text(&event["decision_id"]).map(|id| format!("decision {id}")).unwrap_or_default();
    say(began, name, format!("{what:<28} {why:<26} {decision}").trim_end());
}

fn say(began: Instant, name: &str, what: &str) {
    println!("{:>6.1}s  {name:<15} {what}", began.elapsed().as_secs_f64());
}
