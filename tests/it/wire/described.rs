//! `/openapi.json` as the tests walk it: the calls, and for each body the
//! objects that it is made of, with a value that fits.

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::support::host::TestHost;

/// One call of the document.
pub struct Call {
    pub method: Method,
    /// As described, with `{id}`.
    pub route: String,
    pub operation: Value,
}

impl Call {
    /// The address, about a workspace that exists where it is about one.
    pub fn path(&self, workspace: &str) -> String {
        let id = if self.route.starts_with("/workspaces/") { workspace } else { "x" };
        let filled = [("{id}", id), ("{workspace}", workspace), ("{number}", "7"), ("{command}", "restart")];
        filled.iter().fold(self.route.clone(), |path, (name, value)| path.replace(name, value))
    }

    /// Whether the admin token is a key to it.
    pub fn is_operators(&self) -> bool {
        let ways = self.operation["security"].as_array();
        ways.is_some_and(|ways| ways.iter().any(|way| way.get("operator").is_some()))
    }

    /// The names of its parameters of one sort: `query`, `path`, `header`.
    pub fn parameters(&self, sort: &str) -> Vec<&str> {
        let all = self.operation["parameters"].as_array();
        let of_sort = all.into_iter().flatten().filter(|parameter| parameter["in"] == sort);
        of_sort.map(|parameter| parameter["name"].as_str().expect("a name")).collect()
    }

    /// The schema of its JSON body.
    pub fn body(&self) -> Option<&Value> {
        self.operation.pointer("/requestBody/content/application~1json/schema")
    }

    /// Whether it takes a body that is no JSON.
    pub fn takes_bytes(&self) -> bool {
        self.operation.get("requestBody").is_some() && self.body().is_none()
    }
}

/// The document of a running host.
pub struct Document(pub Value);

impl Document {
    pub async fn of(host: &TestHost) -> Self {
        Self(host.call(Method::GET, "/openapi.json", None, None).await.ok())
    }

    pub fn calls(&self) -> Vec<Call> {
        let mut calls = Vec::new();
        for (route, item) in self.0["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("an item") {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
                calls.push(Call { method, route: route.clone(), operation: operation.clone() });
            }
        }
        calls
    }

    /// The schema itself, of a reference or of a choice in which `null` is one.
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let found = self.0.pointer(reference.trim_start_matches('#'));
            return self.resolve(found.unwrap_or_else(|| panic!("{reference} leads nowhere")));
        }
        match schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            Some(choices) => {
                let other = choices.iter().find(|choice| choice["type"] != "null");
                self.resolve(other.expect("a choice that is not null"))
            }
            None => schema,
        }
    }

    /// Whether the schema allows `null`.
    pub fn takes_null(&self, schema: &Value) -> bool {
        let is = |schema: &Value| match &schema["type"] {
            Value::String(one) => one == "null",
            Value::Array(many) => many.contains(&json!("null")),
            _ => false,
        };
        let choices = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
        let resolved = self.resolve(schema);
        let anything = resolved["type"].is_null() && resolved["enum"].is_null() && choices.is_none();
        anything || is(schema) || is(resolved) || choices.is_some_and(|all| all.iter().any(is))
    }

    /// A value that fits, with no more than what it must have.
    fn sample(&self, schema: &Value) -> Value {
        let schema = self.resolve(schema);
        if let Some(first) = schema["enum"].as_array().and_then(|all| all.first()) {
            return first.clone();
        }
        let kind = match &schema["type"] {
            Value::Array(several) => several.iter().find(|one| **one != "null").expect("a type").clone(),
            one => one.clone(),
        };
        match kind.as_str() {
            Some("string") => json!("x"),
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            _ => {
                let must = schema["required"].as_array().into_iter().flatten();
                let fields = must.map(|name| {
                    let name = name.as_str().expect("a name");
                    (name.to_owned(), self.sample(&schema["properties"][name]))
                });
                Value::Object(fields.collect())
            }
        }
    }

    /// Every object that a body of this schema is made of.
    pub fn objects(&self, schema: &Value) -> Vec<Place> {
        let whole = self.resolve(schema);
        let Some(fields) = whole["properties"].as_object() else { return Vec::new() };
        let base = self.sample(whole);
        let mut found = vec![Place {
            path: String::new(),
            pointer: String::new(),
            body: base.clone(),
            fields: fields.clone(),
        }];
        for (name, field) in fields {
            let inner = self.resolve(field);
            let (item, step, pointer) = match inner["type"] == "array" {
                true => (&inner["items"], format!("{name}[0]"), format!("/{name}/0")),
                false => (field, name.clone(), format!("/{name}")),
            };
            for place in self.objects(item) {
                let mut body = base.clone();
                body[name] = if inner["type"] == "array" { json!([place.body]) } else { place.body };
                let dot = if place.path.is_empty() { "" } else { "." };
                found.push(Place {
                    path: format!("{step}{dot}{}", place.path),
                    pointer: format!("{pointer}{}", place.pointer),
                    body,
                    fields: place.fields,
                });
            }
        }
        found
    }
}

/// An object within a body.
pub struct Place {
    /// As errors name it: `modules[0]`, or nothing for the body itself.
    path: String,
    pointer: String,
    pub body: Value,
    /// Its fields' schemas.
    pub fields: Map<String, Value>,
}

impl Place {
    /// How errors name a field of it.
    pub fn field(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The body, with one field of the object set.
    pub fn with(&self, name: &str, value: Value) -> Value {
        let mut body = self.body.clone();
        body.pointer_mut(&self.pointer).expect("the place")[name] = value;
        body
    }
}
