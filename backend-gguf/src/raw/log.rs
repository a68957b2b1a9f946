//! llama.cpp's log lines as tracing events, and its error lines as the reason of a typed error.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use llama_cpp_sys_2 as sys;

/// One line, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    level: sys::ggml_log_level,
    pub(crate) text: String,
}

impl Line {
    /// Whether llama.cpp logged it as an error.
    pub(crate) fn is_error(&self) -> bool {
        self.level == sys::GGML_LOG_LEVEL_ERROR
    }

    #[cfg(test)]
    pub(crate) fn test(text: &str, is_error: bool) -> Self {
        let level = if is_error { sys::GGML_LOG_LEVEL_ERROR } else { sys::GGML_LOG_LEVEL_INFO };
        Self { level, text: text.to_owned() }
    }
}

#[derive(Default)]
struct ThreadLog {
    /// A line that has not seen its newline yet.
    pending: Option<Line>,
    /// Lines since `capture` began, while one runs on this thread.
    captured: Option<Vec<Line>>,
}

thread_local! {
    static LOG: RefCell<ThreadLog> = RefCell::default();
}

/// Sends all log lines of llama.cpp and ggml to tracing, from now on and for the whole process.
pub(super) fn install() {
    // SAFETY: the callback is a static function that needs no user data; this runs once, before any other call.
    unsafe { sys::llama_log_set(Some(on_log), std::ptr::null_mut()) };
}

/// Runs `call` and gives back what llama.cpp logged on this thread meanwhile, oldest first, debug lines left out.
///
/// Errors among it are the reason of an error that the caller reports, so they reach tracing at debug level only.
pub(crate) fn capture<T>(call: impl FnOnce() -> T) -> (T, Vec<Line>) {
    let outer = LOG.with_borrow_mut(|log| log.captured.replace(Vec::new()));
    let result = call();
    let lines = LOG.with_borrow_mut(|log| std::mem::replace(&mut log.captured, outer)).unwrap_or_default();
    (result, lines)
}

/// The error lines among `lines`, joined.
pub(crate) fn errors(lines: &[Line]) -> String {
    let texts: Vec<&str> =
        lines.iter().filter(|line| line.is_error()).map(|line| line.text.as_str()).collect();
    texts.join("; ")
}

unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _user: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a string that ends with NUL and lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // A panicking subscriber must not unwind into C++. A lost log line is the smaller harm.
    let _ = catch_unwind(AssertUnwindSafe(|| push(level, &text)));
}

fn push(level: sys::ggml_log_level, text: &str) {
    // The borrow ends before tracing is called: a subscriber may come back here.
    let (lines, capturing) = LOG.with_borrow_mut(|log| (log.finish(level, text), log.captured.is_some()));
    for line in lines {
        let quiet = capturing && line.is_error();
        emit(if quiet { sys::GGML_LOG_LEVEL_INFO } else { line.level }, &line.text);
    }
}

impl ThreadLog {
    /// Adds a piece of text and gives back the lines that it completes.
    fn finish(&mut self, level: sys::ggml_log_level, text: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        if level != sys::GGML_LOG_LEVEL_CONT {
            lines.extend(self.pending.take());
        }
        let mut line = self.pending.take().unwrap_or(Line { level, text: String::new() });
        line.text.push_str(text);
        if line.text.ends_with('\n') {
            lines.push(line);
        } else {
            self.pending = Some(line);
        }
        for line in &mut lines {
            line.text.truncate(line.text.trim_end().len());
            if line.level != sys::GGML_LOG_LEVEL_DEBUG
                && let Some(captured) = &mut self.captured
            {
                captured.push(line.clone());
            }
        }
        lines
    }
}

/// llama.cpp's "info" is some two hundred lines per load, so everything below a warning moves one level down.
fn emit(level: sys::ggml_log_level, line: &str) {
    if line.is_empty() {
        return;
    }
    match level {
        sys::GGML_LOG_LEVEL_ERROR => tracing::error!(target: "llama.cpp", "{line}"),
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama.cpp", "{line}"),
        sys::GGML_LOG_LEVEL_DEBUG => tracing::trace!(target: "llama.cpp", "{line}"),
        _ => tracing::debug!(target: "llama.cpp", "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(log: &mut ThreadLog, pieces: &[(sys::ggml_log_level, &str)]) -> Vec<String> {
        pieces.iter().flat_map(|(level, text)| log.finish(*level, text)).map(|line| line.text).collect()
    }

    #[test]
    fn continued_lines_are_joined() {
        use sys::{GGML_LOG_LEVEL_CONT as CONT, GGML_LOG_LEVEL_INFO as INFO};
        let mut log = ThreadLog::default();
        assert_eq!(pieces(&mut log, &[(INFO, "a"), (CONT, "b"), (CONT, "c\n"), (INFO, "d\n")]), ["abc", "d"]);
        // A line whose end never comes is closed by the next one.
        assert_eq!(pieces(&mut log, &[(INFO, "open"), (INFO, "next\n")]), ["open", "next"]);
        assert_eq!(pieces(&mut log, &[(CONT, "stray\n")]), ["stray"]);
    }

    #[test]
    fn capture_takes_this_threads_lines_and_no_debug_lines() {
        let ((), lines) = capture(|| {
            push(sys::GGML_LOG_LEVEL_ERROR, "bad\n");
            push(sys::GGML_LOG_LEVEL_DEBUG, "noise\n");
            push(sys::GGML_LOG_LEVEL_INFO, "size = 1\n");
            std::thread::scope(|scope| {
                scope.spawn(|| push(sys::GGML_LOG_LEVEL_ERROR, "elsewhere\n"));
            });
        });
        assert_eq!(lines, [Line::test("bad", true), Line::test("size = 1", false)]);
        assert_eq!(errors(&lines), "bad");
        let ((), later) = capture(|| ());
        assert!(later.is_empty());
    }
}
