// Writes the lines that the tests read: `fixture text|ansi|json`, set up as Auto-Tundra's own logging is.
use std::time::Duration;
use tracing::{debug, error, info, info_span, warn};

fn main() {
    let form = std::env::args().nth(1).unwrap_or_default();
    let made = tracing_subscriber::fmt()
        .with_env_filter("debug")
        .with_target(true)
        .with_thread_ids(false)
        .with_file(true)
        .with_line_number(true)
        .with_level(true);
    match form.as_str() {
        "json" => made.json().init(),
        form => made.with_ansi(form == "ansi").init(),
    }
    info!(target: "at_daemon", service = "at-daemon", "logging initialised");
    debug!(target: "at_session::pty_pool", cols = 80, rows = 24, "PTY resized");
    warn!(target: "at_intelligence::api_profiles", profile = %"local-runtime", "circuit open, trying next provider");
    warn!(target: "at_intelligence::api_profiles", profile = %"anthropic", timeout = ?Duration::from_secs(30), "call timed out, trying next provider");
    warn!(target: "at_intelligence::api_profiles", profile = %"openai", error = %"API error (status 529): busy now", "call failed, trying next provider");
    error!(target: "at_daemon::orchestrator", error = %"AllProvidersExhausted", "phase failed");
    warn!(target: "at_harness::rate_limiter", key = "global", retry_after = ?Duration::from_millis(1500), "rate limit exceeded");
    warn!(target: "at_harness::circuit_breaker", failures = 5, "circuit breaker transitioning Closed -> Open");
    let span = info_span!(target: "at_bridge", "request", method = "GET", uri = "/api/status");
    let _inside = span.enter();
    error!(target: "at_bridge::http_api", "LlmError::Timeout: request timed out\nsecond line");
}
