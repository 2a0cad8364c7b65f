//! Letting a device in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::auth::{ClientCertificate, Refusal};
use crate::events::Events;
use crate::hub::RoomGuard;
use crate::ids::ConnId;
use crate::metrics::{self, LoginResult};
use crate::planted::{self, Fault};
use crate::protocol::{ErrorCode, Login, Token};
use crate::relay::Relay;
use crate::relay::intake::{Seat, spread};
use crate::session::{Failure, Grant, Welcome};
use crate::store::{Admission, Connect, Event, EventKind, StoreError};

/// When to try again in a shop that is full: when somebody leaves, which nobody can foretell.
const SHOP_FULL_WAIT: Duration = Duration::from_secs(5);
/// How far those who could not reach the store are spread out when they try again.
const RETRY_SPREAD: Duration = Duration::from_secs(2);

/// Who wants to come in, and by which connection.
pub struct Visitor {
    pub login: Login,
    pub conn: ConnId,
    /// Whether it speaks the legacy dialect.
    pub is_legacy: bool,
    /// What its connection came with.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A login that holds, with its room.
pub struct LoggedIn {
    pub welcome: Box<Welcome>,
    pub room: RoomGuard,
    pub seat: Seat,
}

impl Relay {
    /// Checks who it is, takes over the device's presence, and opens its shop's room.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn log_in(&self, visitor: Visitor) -> Result<LoggedIn, Failure> {
        let grant = self.check(&visitor).inspect_err(|_| metrics::login(LoginResult::Unauthorized))?;
        let Visitor { login, conn, .. } = visitor;
        let takes_over = self.hub.find(&login.shop).is_some_and(|room| room.has_device(&login.device));
        let seat = self.intake.seat(&login.shop, takes_over).ok_or_else(shop_full)?;
        let (room, admission) = self.enter(&login, &conn, &grant).await?;
        let Admission::Admitted(connected) = admission else {
            metrics::login(LoginResult::Barred);
            return Err(Failure::new(ErrorCode::Unauthorized, "an operator has barred this device"));
        };
        metrics::login(LoginResult::Ok);
        debug!(shop = %login.shop, device = %login.device, %conn, cursor = %connected.cursor, "logged in");
        self.events.tell(|| Event {
            conn: Some(conn.clone()),
            shop: Some(login.shop.clone()),
            device: Some(login.device.clone()),
            role: Some(login.role),
            user: connected.membership.user.clone(),
            ..Events::event(EventKind::Login, &self.node, self.store.now_ms())
        });
        let expires_at = grant.expires_at_s.map(|at_s| {
            // The store's clock is told in whole milliseconds, and may be one ahead.
            let left_ms = at_s.saturating_mul(1000).saturating_sub(self.store.now_ms()).saturating_add(1);
            // Beyond what the clock can tell is as good as never.
            Instant::now() + Duration::from_millis(left_ms).min(Duration::from_secs(u64::from(u32::MAX)))
        });
        let welcome = Welcome {
            login,
            grant,
            expires_at,
            membership: connected.membership,
            cursor: connected.cursor,
            head: connected.head,
            server_time_ms: self.store.now_ms(),
        };
        Ok(LoggedIn { welcome: Box::new(welcome), room, seat })
    }

    fn check(&self, visitor: &Visitor) -> Result<Grant, Failure> {
        let Visitor { login, is_legacy, certificate, .. } = visitor;
        let Login { shop, device, role, .. } = login;
        let (token, now_s) = (login.token.as_ref().map(Token::secret), self.store.now_ms() / 1000);
        let checked = match is_legacy {
            true => self.gate.devices.check_legacy(token, shop, device, *role, now_s),
            false => self.gate.devices.check(token, shop, device, *role, now_s),
        };
        let refused = |refusal: Refusal| Failure::new(ErrorCode::Unauthorized, refusal.to_string());
        let mut grant = checked.map_err(refused)?;
        let certified_until_s = self.gate.check_certificate(certificate.as_deref(), shop, device, now_s);
        let ends = [grant.expires_at_s, certified_until_s.map_err(refused)?];
        grant.expires_at_s = ends.into_iter().flatten().min();
        let (groups, limit) = (grant.groups.as_ref().map_or(0, Vec::len), self.device_groups_max);
        if groups > limit {
            let text = format!("the token names {groups} groups, a device may be in {limit} (limits.device_groups)");
            return Err(Failure::new(ErrorCode::Unauthorized, text));
        }
        Ok(grant)
    }

    /// Waits for the login's turn and asks the store.
    async fn enter(&self, login: &Login, conn: &ConnId, grant: &Grant) -> Result<(RoomGuard, Admission), Failure> {
        let turn = self.intake.logins.turn().await.map_err(|full| {
            metrics::login(LoginResult::Busy);
            let text = "too many others log in at the moment; nothing was done";
            Failure::new(ErrorCode::Unavailable, text).retry_after(full.retry_after)
        })?;
        let connect = Connect {
            device: login.device.clone(),
            role: login.role,
            conn: conn.clone(),
            node: self.node.clone(),
            meta: login.meta.clone(),
            groups: grant.groups.clone(),
            user: grant.user.clone(),
        };
        let asking = async {
            // Subscribe before the cursor is read; the other way round, an entry that is stored
            // between the two would wait for the next audit.
            let elsewhere = planted::strikes(Fault::WrongShop).then(|| self.hub.rooms().into_iter().next()).flatten();
            let room = self.feed.open(elsewhere.as_ref().map_or(&login.shop, |room| room.shop())).await?;
            Ok((room, self.store.connect(&login.shop, &connect).await?))
        };
        let connected: Result<_, StoreError> = asking.await;
        match &connected {
            Ok(_) => turn.answered(),
            Err(_) => turn.failed(),
        }
        connected.map_err(|error| {
            metrics::login(LoginResult::Unavailable);
            let failure = Failure::from(error);
            // Whoever is refused together is not to come back together.
            let wait = failure.retry_after.map(|wait| wait + spread(RETRY_SPREAD));
            Failure { retry_after: wait, ..failure }
        })
    }
}

/// The shop has as many sessions on this node as it may.
fn shop_full() -> Failure {
    metrics::login(LoginResult::ShopFull);
    let text = "the shop has as many connections to this node as it may (limits.shop_connections)";
    Failure::new(ErrorCode::RateLimited, text).retry_after(SHOP_FULL_WAIT + spread(SHOP_FULL_WAIT))
}
