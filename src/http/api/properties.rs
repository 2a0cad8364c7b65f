//! What must hold of the target of any request to the API; see [`crate::properties`].

#![allow(clippy::unwrap_used, reason = "a property that does not hold panics")]

use std::sync::OnceLock;

use matchit::Router;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Reach, Route, Texts, authorise, router};
use crate::auth::{ApiKey, KeyShops};
use crate::ids::{DeviceId, ShopId};
use crate::message::Role;
use crate::protocol::{List, list_limit};

/// See [`crate::http::properties`].
pub fn target(path: &str, query: &str) {
    static ROUTER: OnceLock<Router<Vec<&'static Route>>> = OnceLock::new();
    let router = ROUTER.get_or_init(|| router().unwrap());
    if let Ok(texts) = Texts::of_query(query) {
        let [status, after, limit] = ["status", "after", "limit"].map(|name| texts.text(name));
        if let Ok(list) = List::from_query(status, after, limit) {
            assert!((1..=500).contains(&list.limit));
        }
        assert!(list_limit(limit).is_ok_and(|limit| (1..=500).contains(&limit)) || limit.is_some());
        drop((texts.optional::<Role>("role"), texts.required::<DeviceId>("after")));
    }
    let Ok(found) = router.at(path) else { return };
    let Ok(texts) = Texts::of_path(found.params.iter()) else { return };
    for (name, written) in found.params.iter() {
        let text = texts.text(name).unwrap();
        let again = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let reread = Texts::of_path([(name, again.as_str())].into_iter()).unwrap_or_default();
        assert_eq!(reread.text(name), Some(text), "{written}");
    }
    let own: ShopId = "s1".parse().unwrap();
    let key = ApiKey { shops: KeyShops::Only([own.clone()].into()), ..ApiKey::local() };
    for route in found.value.iter().filter(|route| authorise(route, &key, &texts).is_ok()) {
        match route.reach {
            Reach::Shop => assert_eq!(texts.required::<ShopId>("shop").ok(), Some(own.clone())),
            Reach::Deployment => unreachable!("{} is for all shops", route.path),
            Reach::Found => {}
        }
    }
}
