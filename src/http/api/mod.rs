//! The HTTP API for back ends: `/v1/…` and `/openapi.json` on the API listener.
//!
//! Owns the life of a request: its id, its route, who may ask, the bounds of its body and its time,
//! its line in the log. What it asks for is done by `relay`, as for devices. Run by `node`, once a
//! connection.

mod ask;
mod call;
mod cors;
mod deployment;
mod devices;
mod members;
mod messages;
mod openapi;
mod problem;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod routes;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use matchit::Router;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, info, warn};

pub use cors::Cors;

use crate::auth::ApiKey;
use crate::http::{Reply, reply};
use crate::ids::ShopId;
use crate::metrics;
use crate::relay::Relay;
use ask::{Ask, Texts};
use problem::Problem;
use routes::{Body, ROUTES, Reach, Route};

/// How long a client may take to send a request's head on a connection for which there is no room.
const REFUSED_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections for which there is no room and which are told so; what comes beyond these is dropped.
const REFUSING_MAX: usize = 256;
/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The header that names a request, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id of a client that is taken over.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// The route label of a path that is none.
const NO_ROUTE: &str = "none";

/// See the module.
pub struct Api {
    relay: Arc<Relay>,
    cors: Cors,
    router: Router<Vec<&'static Route>>,
    connections: Semaphore,
    /// Those that are only told that there is no room.
    refusing: Semaphore,
    head_timeout: Duration,
    requests: AtomicU64,
}

/// What a request's line in the log says.
struct Line {
    id: HeaderValue,
    method: Method,
    route: &'static str,
    key: Option<Arc<ApiKey>>,
}

impl Api {
    /// The API of this node, for so many connections at once, each of which may take `head_timeout` to send a
    /// request's head, and to begin the next.
    ///
    /// # Errors
    /// Where two of its routes cannot be told apart.
    pub fn new(
        relay: Arc<Relay>,
        cors: Cors,
        connections_max: usize,
        head_timeout: Duration,
    ) -> Result<Api, matchit::InsertError> {
        let (router, requests) = (router()?, AtomicU64::new(0));
        let (connections, refusing) = (Semaphore::new(connections_max), Semaphore::new(REFUSING_MAX));
        Ok(Api { relay, cors, router, connections, refusing, head_timeout, requests })
    }

    /// Serves one connection. Once `stopping` says so it ends after the request that is under way.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, mut stopping: watch::Receiver<bool>) {
        let place = self.connections.try_acquire();
        let told = place.is_err().then(|| self.refusing.try_acquire());
        if matches!(told, Some(Err(_))) {
            return;
        }
        let service = service_fn(|request| async {
            let reply = match &place {
                Ok(_) => self.answer(request).await,
                Err(_) => self.full(&request),
            };
            Ok::<_, Infallible>(reply)
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        // Who is only to be told that there is no room gets little time to ask.
        let head_timeout = if place.is_ok() { self.head_timeout } else { REFUSED_HEAD_TIMEOUT };
        http.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_BYTES_MAX);
        http.keep_alive(place.is_ok());
        // An error means that nobody is left to say it.
        let stopped = async { drop(stopping.wait_for(|stopping| *stopping).await) };
        let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
        let served = tokio::select! {
            served = &mut serving => served,
            () = stopped => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            debug!(%error, "a connection of a back end failed");
        }
    }

    /// The answer on a connection for which there is no room.
    fn full(&self, request: &Request<Incoming>) -> Reply {
        let problem = Problem::full("this node has no room for another connection of a back end");
        let id = self.request_id(request.headers());
        let mut reply = problem.reply(id.to_str().unwrap_or_default());
        reply.headers_mut().insert(REQUEST_ID, id);
        metrics::api_request(NO_ROUTE, reply.status().as_u16(), Duration::ZERO);
        reply
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let began = Instant::now();
        let origin = request.headers().get("origin").cloned();
        let mut line = Line {
            id: self.request_id(request.headers()),
            method: request.method().clone(),
            route: NO_ROUTE,
            key: None,
        };
        let outcome = self.route(request, &mut line).await;
        let (mut reply, detail) = match outcome {
            Ok(reply) => (reply, None),
            Err(problem) => (problem.reply(line.id.to_str().unwrap_or_default()), Some(problem.detail)),
        };
        self.cors.add_headers(origin.as_ref(), reply.headers_mut());
        reply.headers_mut().insert(REQUEST_ID, line.id.clone());
        metrics::api_request(line.route, reply.status().as_u16(), began.elapsed());
        line.write(reply.status(), began.elapsed(), detail.as_deref());
        reply
    }

    async fn route(&self, request: Request<Incoming>, line: &mut Line) -> Result<Reply, Problem> {
        self.cors.check(request.method(), request.headers())?;
        let path = request.uri().path().to_owned();
        if path == "/openapi.json" {
            line.route = "/openapi.json";
            return match *request.method() {
                Method::GET | Method::HEAD => Ok(reply(StatusCode::OK, "application/json", openapi::document())),
                Method::OPTIONS if self.cors.is_on() => Ok(problem::no_content()),
                _ => Err(Problem::wrong_method(vec![Method::GET, Method::HEAD])),
            };
        }
        let Ok(found) = self.router.at(&path) else {
            return Err(Problem::not_found("no such path; GET /openapi.json describes what there is"));
        };
        let routes = found.value;
        line.route = routes.first().map_or(NO_ROUTE, |route| route.path);
        if request.method() == Method::OPTIONS && self.cors.is_on() {
            return Ok(problem::no_content());
        }
        // hyper leaves out the body of an answer to HEAD.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let Some(route) = routes.iter().find(|route| route.method == *method) else {
            return Err(Problem::wrong_method(allowed(routes)));
        };
        let authorization = request.headers().get(AUTHORIZATION).map(|text| text.to_str().unwrap_or_default());
        let key = self.relay.gate.api.check(authorization);
        let key = key.map_err(|refused| Problem::unauthorized(refused.to_string()))?;
        line.key = Some(key.clone());
        let path = Texts::of_path(found.params.iter())?;
        authorise(route, &key, &path)?;
        let query = Texts::of_query(request.uri().query().unwrap_or_default())?;
        let headers = request.headers().clone();
        let body = self.body(route, request).await?;
        route.call.perform(Ask { relay: self.relay.clone(), key, path, query, headers, body }).await
    }

    /// The body, where the route takes one.
    async fn body(&self, route: &Route, request: Request<Incoming>) -> Result<Bytes, Problem> {
        let limit = self.relay.session.frame_bytes;
        let is_empty = request.body().is_end_stream();
        match route.about.body {
            Body::None => return Ok(Bytes::new()),
            Body::Optional(_) if is_empty => return Ok(Bytes::new()),
            Body::Optional(_) | Body::Required(_) => {}
        }
        check_media_type(route, request.headers())?;
        if request.body().size_hint().lower() > limit as u64 {
            return Err(Problem::too_large(limit));
        }
        let reading = Limited::new(request.into_body(), limit).collect();
        match tokio::time::timeout(BODY_TIMEOUT, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::too_large(limit)),
            Ok(Err(_)) => Err(Problem::bad_request("the body ended before its end")),
            Err(_) => Err(Problem::too_late(format!("the body did not come within {BODY_TIMEOUT:?}"))),
        }
    }

    /// The client's own id of the request, or one of ours.
    fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let is_plain = |id: &&HeaderValue| {
            let bytes = id.as_bytes();
            (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len())
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        };
        let given = headers.get(REQUEST_ID).filter(is_plain).cloned();
        given.unwrap_or_else(|| {
            HeaderValue::from_str(&self.own_request_id()).unwrap_or(HeaderValue::from_static("unnamed"))
        })
    }

    fn own_request_id(&self) -> String {
        format!("{}.r{}", self.relay.node, self.requests.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Line {
    fn write(&self, status: StatusCode, took: Duration, detail: Option<&str>) {
        let (id, method, route) = (self.id.to_str().unwrap_or_default(), self.method.as_str(), self.route);
        let (status, key) = (status.as_u16(), self.key.as_ref().map_or("none", |key| key.name.as_str()));
        let is_operators = status < 400 && matches!(method, "POST" | "DELETE") && route.ends_with("close")
            || status < 400 && method == "DELETE";
        if status >= 500 {
            warn!(request = id, method, route, status, key, ?took, detail, "an API request failed");
        } else if is_operators {
            info!(request = id, method, route, status, key, ?took, "an API request");
        } else {
            debug!(request = id, method, route, status, key, ?took, detail, "an API request");
        }
    }
}

/// From a path to the routes that have it.
fn router() -> Result<Router<Vec<&'static Route>>, matchit::InsertError> {
    let mut router: Router<Vec<&'static Route>> = Router::new();
    let mut paths: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        router.insert(path, ROUTES.iter().filter(|route| route.path == path).collect())?;
    }
    Ok(router)
}

fn allowed(routes: &[&'static Route]) -> Vec<Method> {
    let mut methods: Vec<Method> = routes.iter().map(|route| route.method.clone()).collect();
    if methods.contains(&Method::GET) {
        methods.push(Method::HEAD);
    }
    methods
}

fn authorise(route: &Route, key: &ApiKey, path: &Texts) -> Result<(), Problem> {
    if !key.may(route.scope) {
        return Err(Problem::forbidden(format!("the key lacks the scope {}", route.scope.as_str())));
    }
    match route.reach {
        Reach::Shop if !key.may_enter(&path.required::<ShopId>("shop")?) => {
            Err(Problem::forbidden("the key is not for this shop"))
        }
        Reach::Deployment if !key.has_all_shops() => Err(Problem::forbidden("the key is not for all shops")),
        Reach::Shop | Reach::Deployment | Reach::Found => Ok(()),
    }
}

/// Bodies are JSON. One that does not say what it is, is taken for JSON.
fn check_media_type(route: &Route, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let given = given.to_str().unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_patch = route.method == Method::PATCH && media_type == "application/merge-patch+json";
    if media_type == "application/json" || is_patch {
        return Ok(());
    }
    Err(Problem::wrong_media_type("application/json"))
}
