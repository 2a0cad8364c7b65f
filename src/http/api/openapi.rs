//! `GET /openapi.json`: OpenAPI 3.1, made from the table of routes.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::http::api::problem::PROBLEM_JSON;
use crate::http::api::routes::{About, Body, Query, ROUTES, Reach, Route};

/// The schemas of bodies and names, by hand.
const SCHEMAS: &str = include_str!("schemas.json");
/// The body of a message, beside which a header can give its key.
const NOTIFY: Body = Body::Required("Notify");
/// What every route can meet: a bad request, no key, the wrong key, a fault, and a store that is away.
const COMMON_PROBLEMS: [u16; 5] = [400, 401, 403, 500, 503];
/// What a route with a body can meet too: a slow one, a large one, one of another media type.
const BODY_PROBLEMS: [u16; 3] = [408, 413, 415];

/// The document.
pub fn document() -> Bytes {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(build().to_string()));
    DOCUMENT.clone()
}

fn build() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({ "parameters": path_parameters(route.path) }));
        if let Value::Object(path) = path {
            path.insert(route.method.as_str().to_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "shoprelay",
            "version": "1",
            "description": "Back ends drive the relay: messages, devices, groups, users, connections. \
                Numbers of time are milliseconds since 1970. Lists page by `after` and `limit`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            "schemas": serde_json::from_str::<Value>(SCHEMAS).unwrap_or_default(),
        },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// The names in a path, each of which has a schema.
fn path_parameters(path: &str) -> Value {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = match name {
            "id" => "MessageId",
            "conn" => "ConnId",
            _ => "Name",
        };
        json!({ "name": name, "in": "path", "required": true, "schema": reference(schema) })
    };
    names.map(parameter).collect()
}

fn operation(route: &Route) -> Value {
    let about = &route.about;
    let reach = match route.reach {
        Reach::Shop => "the shop",
        Reach::Deployment => "all shops",
        Reach::Found => "the connection's shop",
    };
    let scope = route.scope.as_str();
    let mut operation = Map::new();
    let mut set = |name: &str, value: Value| operation.insert(name.to_owned(), value);
    set("operationId", json!(format!("{:?}", route.call)));
    set("summary", json!(about.summary));
    set("description", json!(format!("Needs a key with the scope `{scope}` for {reach}.")));
    // For a scheme that is no OAuth these are roles (OpenAPI 3.1, "Security Requirement Object").
    set("security", json!([{ "key": [scope] }]));
    set("parameters", parameters(about));
    set("responses", responses(route));
    let body = match about.body {
        Body::None => None,
        Body::Optional(schema) => Some((schema, false)),
        Body::Required(schema) => Some((schema, true)),
    };
    if let Some((schema, is_required)) = body {
        let content = json!({ "application/json": { "schema": reference(schema) } });
        set("requestBody", json!({ "required": is_required, "content": content }));
    }
    Value::Object(operation)
}

/// The parameters of query and header.
fn parameters(about: &About) -> Value {
    let key = (about.body == NOTIFY).then(|| {
        json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A second request with the same key stores nothing and is answered with the first one's \
                id. Where the field `key` is given too, it must be the same.",
            "schema": reference("HeaderKey"),
        })
    });
    about.query.iter().map(|query| query_parameter(*query)).chain(key).collect()
}

fn query_parameter(query: Query) -> Value {
    let (name, schema) = match query {
        Query::AfterName => ("after", json!({ "type": "string" })),
        Query::AfterId => ("after", reference("MessageId")),
        Query::AfterPlace => ("after", reference("ConnectionsPlace")),
        Query::Limit => ("limit", json!({ "type": "integer", "minimum": 1, "maximum": 500, "default": 100 })),
        Query::Status => ("status", reference("Name")),
        Query::Role => ("role", reference("Role")),
        Query::Group => ("group", reference("Name")),
        Query::User => ("user", reference("Name")),
        Query::Node => ("node", reference("ConnId")),
    };
    json!({ "name": name, "in": "query", "schema": schema })
}

fn responses(route: &Route) -> Value {
    let about = &route.about;
    let mut responses = Map::new();
    for (status, schema) in about.done {
        let mut headers = vec![("X-Request-Id", "string")];
        if about.body == NOTIFY {
            // Where the message is; a signal is nowhere.
            headers.extend((*status != 202).then_some(("Location", "string")));
        }
        let content = schema.map(|schema| ("application/json", schema));
        responses.insert(status.to_string(), response("done", &headers, content));
    }
    let of_body = if about.body == Body::None { &[][..] } else { &BODY_PROBLEMS[..] };
    for status in COMMON_PROBLEMS.iter().chain(of_body).chain(about.problems) {
        let mut headers = vec![("X-Request-Id", "string")];
        match status {
            401 => headers.push(("WWW-Authenticate", "string")),
            429 | 503 => headers.push(("Retry-After", "integer")),
            _ => {}
        }
        let problem = response(problem_description(*status), &headers, Some((PROBLEM_JSON, "Problem")));
        responses.insert(status.to_string(), problem);
    }
    Value::Object(responses)
}

/// A response with these headers, each of its type and always there, and a body of this media type and
/// schema.
fn response(description: &str, headers: &[(&str, &str)], body: Option<(&str, &str)>) -> Value {
    let headers = headers.iter().map(|(name, kind)| {
        let header = json!({ "schema": { "type": kind }, "required": true });
        ((*name).to_owned(), header)
    });
    let headers: Map<String, Value> = headers.collect();
    match body {
        Some((media_type, schema)) => {
            let content = json!({ media_type: { "schema": reference(schema) } });
            json!({ "description": description, "headers": headers, "content": content })
        }
        None => json!({ "description": description, "headers": headers }),
    }
}

fn problem_description(status: u16) -> &'static str {
    match status {
        400 => "the request is wrong; `detail` names the field",
        401 => "no key, or an unknown one",
        403 => "the key may not do this, or not for this shop",
        404 => "there is no such shop, device, message or connection",
        408 => "the body did not come in time",
        409 => "somebody else dealt with it first, or the shop has no main device",
        413 => "the body is too large",
        415 => "the body is no JSON",
        429 => "the shop sends too much",
        503 => "the store cannot be reached, or the shop's log is full; try again after a while",
        _ => "the relay failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_that_is_named_is_there_and_used() {
        let document = build().to_string();
        let schemas: Map<String, Value> = serde_json::from_str(SCHEMAS).unwrap();
        let named: std::collections::BTreeSet<&str> =
            document.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(named, schemas.keys().map(String::as_str).collect());
    }
}
