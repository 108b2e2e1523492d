//! The AWS SDK for Rust as one of the SDK programs: its default credential chain and nothing else. Lines on stdin, one JSON line each on stdout.

use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use aws_config::BehaviorVersion;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::{
    ConfigBag, Credentials, ResolveCachedIdentity, RuntimeComponents, SharedIdentityCache,
};
use aws_sdk_sts::error::DisplayErrorContext;
use aws_sdk_sts::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::identity::{Identity, IdentityFuture, SharedIdentityResolver};
use serde_json::{Value, json};

/// The SDK's own identity cache; it only notes what the cache last gave out, which is what the request is signed with.
/// Asking the credentials provider once more instead would go round the cache, as a second request to the endpoint.
#[derive(Clone, Debug)]
struct Witness {
    cache: SharedIdentityCache,
    last: Arc<Mutex<Option<Identity>>>,
}

impl ResolveCachedIdentity for Witness {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        components: &'a RuntimeComponents,
        settings: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async move {
            let identity = self
                .cache
                .resolve_cached_identity(resolver, components, settings)
                .await?;
            *self.last.lock().expect("not poisoned") = Some(identity.clone());
            Ok(identity)
        })
    }
}

struct Program {
    client: Client,
    seen: Witness,
}

impl Program {
    async fn started() -> Self {
        let settings = aws_config::defaults(BehaviorVersion::latest()).load().await;
        let cache = settings
            .identity_cache()
            .expect("the defaults have an identity cache");
        let seen = Witness {
            cache,
            last: Arc::default(),
        };
        let settings = settings.into_builder().identity_cache(seen.clone()).build();
        Self {
            client: Client::new(&settings),
            seen,
        }
    }

    async fn identity(&self) -> Result<Value, Box<dyn Error>> {
        let reply = self.client.get_caller_identity().send().await?;
        let last = self.seen.last.lock().expect("not poisoned").clone();
        let key = last
            .as_ref()
            .and_then(|identity| identity.data::<Credentials>())
            .map(Credentials::access_key_id);
        let expiration = last
            .as_ref()
            .and_then(Identity::expiration)
            .map(|at| DateTime::from_secs(DateTime::from(at).secs()).fmt(DateTimeFormat::DateTime))
            .transpose()?;
        Ok(json!({"ok": true, "arn": reply.arn(), "key": key, "expiration": expiration}))
    }
}

async fn timed(kept: &mut Option<Program>) -> Value {
    let began = Instant::now();
    if kept.is_none() {
        *kept = Some(Program::started().await);
    }
    let program = kept.as_ref().expect("just made");
    let mut answer = match program.identity().await {
        Ok(told) => told,
        // Display alone says "dispatch failure": the SDK's own documentation tells its users to print errors like this.
        Err(error) => json!({"ok": false, "text": DisplayErrorContext(error.as_ref()).to_string()}),
    };
    answer["seconds"] = json!(began.elapsed().as_secs_f64());
    answer
}

fn say(answer: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    out.flush()
}

fn main() -> Result<(), Box<dyn Error>> {
    say(&json!({"client": "rust", "version": env!("AWS_CONFIG_VERSION")}))?;
    // A worker thread of its own: the SDK's pooled connections are looked after while we wait on stdin.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut kept = None;
    for line in std::io::stdin().lock().lines() {
        match line?.trim() {
            "quit" => break,
            "call" => say(&runtime.block_on(timed(&mut kept)))?,
            "fresh" => {
                kept = None;
                say(&runtime.block_on(timed(&mut kept)))?;
            }
            _ => say(
                &json!({"ok": false, "text": "unknown command: say call, fresh or quit", "seconds": 0}),
            )?,
        }
    }
    Ok(())
}
