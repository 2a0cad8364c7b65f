//! Every request that the API takes: the one table from which requests are routed and authorised, and
//! from which the OpenAPI document is made.

use hyper::Method;

use crate::auth::Scope;
use crate::http::api::call::Call;

/// A request that the API takes.
pub struct Route {
    pub method: Method,
    /// With names in braces, as matchit and OpenAPI write them.
    pub path: &'static str,
    pub call: Call,
    pub scope: Scope,
    pub reach: Reach,
    pub about: About,
}

/// Which shops a key must be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The one in the path.
    Shop,
    /// All.
    Deployment,
    /// The one that the handler finds; to another key it is not there.
    Found,
}

/// What the OpenAPI document says of a route beyond that.
pub struct About {
    pub summary: &'static str,
    pub query: &'static [Query],
    pub body: Body,
    /// The answers to what is done, with the schemas of their bodies.
    pub done: &'static [(u16, Option<&'static str>)],
    /// The statuses of problems beyond those that every route can meet.
    pub problems: &'static [u16],
}

/// A parameter of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// A page of names begins after this one.
    AfterName,
    /// A page of messages begins after this id.
    AfterId,
    /// A page of connections begins after this place, as the page before it gave it.
    AfterPlace,
    Limit,
    Status,
    Role,
    Group,
    User,
    Node,
}

/// The body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// None; one that is sent is ignored.
    None,
    /// One of this schema, or none.
    Optional(&'static str),
    Required(&'static str),
}

const fn of_shop(method: Method, path: &'static str, call: Call, scope: Scope, about: About) -> Route {
    Route { method, path, call, scope, reach: Reach::Shop, about }
}

const fn of_all(method: Method, path: &'static str, call: Call, scope: Scope, about: About) -> Route {
    Route { method, path, call, scope, reach: Reach::Deployment, about }
}

const NO_QUERY: &[Query] = &[];
const PAGE: &[Query] = &[Query::AfterName, Query::Limit];
const NO_CONTENT: &[(u16, Option<&str>)] = &[(204, None)];

const fn reads(summary: &'static str, query: &'static [Query], done: &'static [(u16, Option<&'static str>)]) -> About {
    About { summary, query, body: Body::None, done, problems: &[] }
}

const fn finds(summary: &'static str, done: &'static [(u16, Option<&'static str>)]) -> About {
    About { summary, query: NO_QUERY, body: Body::None, done, problems: &[404] }
}

const fn does(summary: &'static str, problems: &'static [u16]) -> About {
    About { summary, query: NO_QUERY, body: Body::None, done: NO_CONTENT, problems }
}

const fn takes(
    summary: &'static str,
    body: Body,
    done: &'static [(u16, Option<&'static str>)],
    problems: &'static [u16],
) -> About {
    About { summary, query: NO_QUERY, body, done, problems }
}

/// Every route; `GET /openapi.json` beside them needs no key.
pub const ROUTES: &[Route] = &[
    of_shop(
        Method::POST,
        "/v1/shops/{shop}/messages",
        Call::PostMessage,
        Scope::Write,
        takes(
            "Send a message, or a signal; the header Idempotency-Key makes a retry safe",
            Body::Required("Notify"),
            &[(201, Some("Posted")), (200, Some("Posted")), (202, Some("Posted"))],
            &[404, 409, 429],
        ),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/messages",
        Call::ListMessages,
        Scope::Read,
        reads("List the shop's messages", &[Query::Status, Query::AfterId, Query::Limit], &[(200, Some("Messages"))]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/messages/{id}",
        Call::GetMessage,
        Scope::Read,
        finds("Show a message, and which devices have it", &[(200, Some("Message"))]),
    ),
    of_shop(
        Method::PUT,
        "/v1/shops/{shop}/messages/{id}/status",
        Call::PutStatus,
        Scope::Write,
        takes("Deal with a message", Body::Required("Deal"), NO_CONTENT, &[404, 409]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/devices",
        Call::ListDevices,
        Scope::Read,
        reads("List the registered devices", PAGE, &[(200, Some("Devices"))]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/devices/{device}",
        Call::GetDevice,
        Scope::Read,
        finds("Show a registered device", &[(200, Some("Device"))]),
    ),
    of_shop(
        Method::DELETE,
        "/v1/shops/{shop}/devices/{device}",
        Call::ForgetDevice,
        Scope::Operate,
        does("Forget a device, and close its connection with 4005", &[404]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/online",
        Call::ListOnline,
        Scope::Read,
        reads(
            "List who is connected, and on which node",
            &[Query::Role, Query::Group, Query::User, Query::Node, Query::AfterName, Query::Limit],
            &[(200, Some("Online"))],
        ),
    ),
    of_shop(
        Method::POST,
        "/v1/shops/{shop}/devices/{device}/close",
        Call::CloseDevice,
        Scope::Operate,
        takes(
            "Close a device's connection with 4005, after a last signal of type close if data is given",
            Body::Optional("Close"),
            NO_CONTENT,
            &[404],
        ),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/barred",
        Call::ListBarred,
        Scope::Read,
        reads("List the devices that may not log in", PAGE, &[(200, Some("Barred"))]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/devices/{device}/bar",
        Call::GetBar,
        Scope::Read,
        finds("Show since when a device is barred, and by whom", &[(200, Some("BarredDevice"))]),
    ),
    of_shop(
        Method::PUT,
        "/v1/shops/{shop}/devices/{device}/bar",
        Call::BarDevice,
        Scope::Operate,
        takes(
            "Bar a device, registered or not: close its connection with 4005, and let it log in no more",
            Body::Optional("Close"),
            NO_CONTENT,
            &[],
        ),
    ),
    of_shop(
        Method::DELETE,
        "/v1/shops/{shop}/devices/{device}/bar",
        Call::UnbarDevice,
        Scope::Operate,
        does("Let a barred device log in again", &[]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/devices/{device}/attrs",
        Call::GetAttrs,
        Scope::Read,
        finds("Show a device's attributes", &[(200, Some("Attrs"))]),
    ),
    of_shop(
        Method::PUT,
        "/v1/shops/{shop}/devices/{device}/attrs",
        Call::PutAttrs,
        Scope::Write,
        takes("Set a device's attributes", Body::Required("NewAttrs"), NO_CONTENT, &[404]),
    ),
    of_shop(
        Method::PATCH,
        "/v1/shops/{shop}/devices/{device}/attrs",
        Call::PatchAttrs,
        Scope::Write,
        takes(
            "Merge into a device's attributes (RFC 7396: a null removes)",
            Body::Required("NewAttrs"),
            &[(200, Some("Attrs"))],
            &[404],
        ),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/groups",
        Call::ListGroups,
        Scope::Read,
        reads("List the groups that have members", PAGE, &[(200, Some("Names"))]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/groups/{group}",
        Call::GetGroup,
        Scope::Read,
        reads("List the devices in a group", PAGE, &[(200, Some("Names"))]),
    ),
    of_shop(
        Method::DELETE,
        "/v1/shops/{shop}/groups/{group}",
        Call::DissolveGroup,
        Scope::Write,
        does("Dissolve a group", &[]),
    ),
    of_shop(
        Method::PUT,
        "/v1/shops/{shop}/groups/{group}/devices/{device}",
        Call::JoinGroup,
        Scope::Write,
        does("Put a device into a group", &[404]),
    ),
    of_shop(
        Method::DELETE,
        "/v1/shops/{shop}/groups/{group}/devices/{device}",
        Call::LeaveGroup,
        Scope::Write,
        does("Take a device out of a group", &[]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/users",
        Call::ListUsers,
        Scope::Read,
        reads("List the users that have devices", PAGE, &[(200, Some("Names"))]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/users/{user}",
        Call::GetUser,
        Scope::Read,
        reads("List the devices of a user", PAGE, &[(200, Some("Names"))]),
    ),
    of_shop(
        Method::PUT,
        "/v1/shops/{shop}/users/{user}/devices/{device}",
        Call::BindUser,
        Scope::Write,
        does("Bind a device to a user", &[404]),
    ),
    of_shop(
        Method::DELETE,
        "/v1/shops/{shop}/users/{user}/devices/{device}",
        Call::UnbindUser,
        Scope::Write,
        does("Unbind a device from a user", &[]),
    ),
    of_shop(
        Method::GET,
        "/v1/shops/{shop}/stats",
        Call::ShopStats,
        Scope::Read,
        reads("Count what a shop has", NO_QUERY, &[(200, Some("ShopStats"))]),
    ),
    of_all(
        Method::GET,
        "/v1/connections",
        Call::ListConnections,
        Scope::Read,
        reads(
            "List the connections of all shops",
            &[Query::Role, Query::Node, Query::AfterPlace, Query::Limit],
            &[(200, Some("Connections"))],
        ),
    ),
    Route {
        method: Method::GET,
        path: "/v1/connections/{conn}",
        call: Call::GetConnection,
        scope: Scope::Read,
        reach: Reach::Found,
        about: finds("Show whose connection it is", &[(200, Some("Connection"))]),
    },
    Route {
        method: Method::POST,
        path: "/v1/connections/{conn}/close",
        call: Call::CloseConnection,
        scope: Scope::Operate,
        reach: Reach::Found,
        about: takes(
            "Close a connection with 4005, after a last signal of type close if data is given",
            Body::Optional("Close"),
            NO_CONTENT,
            &[404],
        ),
    },
    of_all(
        Method::POST,
        "/v1/broadcast",
        Call::Broadcast,
        Scope::Operate,
        takes(
            "Send a signal to every connected device of every shop",
            Body::Required("Broadcast"),
            &[(202, Some("Broadcasted"))],
            &[],
        ),
    ),
    of_all(
        Method::GET,
        "/v1/shops",
        Call::ListShops,
        Scope::Read,
        reads("List the shops", PAGE, &[(200, Some("Names"))]),
    ),
    of_all(
        Method::GET,
        "/v1/nodes",
        Call::ListNodes,
        Scope::Read,
        reads("List the nodes that live", PAGE, &[(200, Some("Nodes"))]),
    ),
    of_all(
        Method::GET,
        "/v1/stats",
        Call::Stats,
        Scope::Read,
        reads("Count what the deployment has", NO_QUERY, &[(200, Some("Stats"))]),
    ),
];
