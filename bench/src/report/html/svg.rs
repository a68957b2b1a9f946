//! Just enough SVG for a report's charts: shapes with classes (colours are the page's), text, and scales.

use std::fmt::Write;

use crate::order::Side;

/// The width of every chart in its own units: a phone's, so that text stays readable there. Wider screens enlarge it.
pub(super) const WIDTH: f64 = 400.0;

/// A chart being drawn.
#[derive(Debug)]
pub(super) struct Svg {
    body: String,
    height: f64,
    /// What it shows, for whoever cannot see it.
    title: String,
    /// What can be read from it, for the same.
    description: String,
}

/// Where a text is held.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) fn new(height: f64, title: &str) -> Self {
        Self { body: String::new(), height, title: escape(title), description: String::new() }
    }

    /// One more thing that can be read from it, in a sentence.
    pub(super) fn describe(&mut self, sentence: &str) {
        if !self.description.is_empty() {
            self.description.push_str("; ");
        }
        self.description.push_str(&escape(sentence));
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    /// With its lower left corner at `corner` moved up by `height`: x, y are of the upper left.
    pub(super) fn rect(&mut self, class: &str, corner: (f64, f64), width: f64, height: f64) {
        let ((x, y), width) = (corner, width.max(0.0));
        self.push(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ));
    }

    /// A dot that says `title` when pointed at.
    pub(super) fn dot(&mut self, class: &str, at: (f64, f64), radius: f64, title: &str) {
        let ((x, y), title) = (at, escape(title));
        self.push(format_args!(
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius:.1}"><title>{title}</title></circle>"#
        ));
    }

    /// An arm's mark, which says `title` when pointed at: a disc for A, a diamond for B, so that colour is not needed.
    pub(super) fn mark(&mut self, side: Side, at: (f64, f64), title: &str) {
        const RADIUS: f64 = 4.5;
        if side == Side::A {
            return self.dot("fill a", at, RADIUS, title);
        }
        let ((x, y), title, r) = (at, escape(title), RADIUS + 1.0);
        let (left, right, top, bottom) = (x - r, x + r, y - r, y + r);
        self.push(format_args!(
            r#"<path class="fill b" d="M{left:.1} {y:.1}L{x:.1} {top:.1}L{right:.1} {y:.1}L{x:.1} {bottom:.1}Z"><title>{title}</title></path>"#
        ));
    }

    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut data = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let _ = write!(data, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" }); // does not fail
        }
        self.push(format_args!(r#"<path class="{class}" d="{data}"/>"#));
    }

    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let ((x, y), text) = (at, escape(text));
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    fn push(&mut self, shape: std::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(shape); // does not fail
        self.body.push('\n');
    }

    /// The element.
    pub(super) fn finish(self) -> String {
        let Self { body, height, title, description } = self;
        let description = match description.as_str() {
            "" => String::new(),
            text => format!("<desc>{text}</desc>\n"),
        };
        format!(
            "<svg role=\"img\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" xmlns=\"http://www.w3.org/2000/svg\">\n\
             <title>{title}</title>\n{description}{body}</svg>\n"
        )
    }
}

/// From values to places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// `low` is drawn at `from`, `high` at `to`. An empty or broken range becomes one of width 1.
    pub(super) fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        let sane = low.is_finite() && high.is_finite() && high > low;
        let (low, high) = if sane { (low, high) } else { (0.0, 1.0) };
        Self { low, high, from, to }
    }

    /// The place of a value; values outside of the range stay at its ends.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// Round values within the range, at most about `n`.
    pub(super) fn ticks(&self, n: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / n.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|multiple| multiple as f64 * step).collect()
    }
}

/// From positive values to places, in equal steps for equal ratios.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogScale(Scale);

impl LogScale {
    /// As [`Scale::new`]; values that are not positive lie at the start.
    pub(super) fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self(Scale::new(low.ln(), high.ln(), from, to))
    }

    /// The place of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        self.0.at(value.max(f64::MIN_POSITIVE).ln())
    }

    /// Round values within the range, whose places are at least `apart` from each other.
    pub(super) fn ticks(&self, apart: f64) -> Vec<f64> {
        let (low, high) = (self.0.low / std::f64::consts::LN_10, self.0.high / std::f64::consts::LN_10);
        let mut ticks: Vec<f64> = Vec::new();
        // Powers of ten first, then what lies between them.
        for mantissa in [1.0, 2.0, 5.0, 3.0, 7.0, 1.5, 4.0, 6.0, 8.0] {
            for power in (low.floor() as i32)..=(high.ceil() as i32) {
                let tick = mantissa * 10f64.powi(power);
                let inside = (self.0.low..=self.0.high).contains(&tick.ln());
                if inside && ticks.iter().all(|other| (self.at(*other) - self.at(tick)).abs() >= apart) {
                    ticks.push(tick);
                }
            }
        }
        ticks
    }
}

/// Text that HTML takes as text, in attributes too.
pub(in crate::report) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(Scale::new(0.0, 10.0, 0.0, 1.0).ticks(5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let ticks = Scale::new(0.13, 0.87, 0.0, 1.0).ticks(4);
        assert_eq!(
            ticks.iter().map(|tick| format!("{tick:.1}")).collect::<Vec<_>>(),
            ["0.2", "0.4", "0.6", "0.8"]
        );
    }

    #[test]
    fn broken_ranges_are_drawn_all_the_same() {
        for (low, high) in [(1.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (2.0, 1.0)] {
            let scale = Scale::new(low, high, 10.0, 20.0);
            assert!((10.0..=20.0).contains(&scale.at(3.0)));
            assert!(scale.ticks(5).len() < 20);
        }
        assert_eq!(Scale::new(0.0, 1.0, 10.0, 20.0).at(7.0), 20.0);
    }

    #[test]
    fn logarithmic_ticks_are_round_and_apart() {
        let scale = LogScale::new(90.0, 2100.0, 0.0, 100.0);
        let ticks = scale.ticks(15.0);
        assert_eq!(ticks, [100.0, 1000.0, 200.0, 2000.0, 500.0]);
        for (low, high) in [(0.0, 1.0), (-1.0, 1.0), (5.0, 5.0), (f64::NAN, 1.0), (1.0, f64::INFINITY)] {
            let scale = LogScale::new(low, high, 0.0, 100.0);
            assert!((0.0..=100.0).contains(&scale.at(3.0)) && (0.0..=100.0).contains(&scale.at(-3.0)));
            assert!(scale.ticks(10.0).len() <= 11, "{low} to {high}");
        }
    }

    #[test]
    fn a_description_is_text_too() {
        let mut svg = Svg::new(10.0, "<t>");
        svg.describe("a < b");
        svg.describe("c");
        svg.mark(Side::B, (1.0, 2.0), "\"x\"");
        let drawn = svg.finish();
        assert!(drawn.contains("<title>&lt;t&gt;</title>\n<desc>a &lt; b; c</desc>"), "{drawn}");
        assert!(drawn.contains("<title>&quot;x&quot;</title></path>"), "{drawn}");
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("<a href='x'>\u{1}&\"</a>"), "&lt;a href=&#39;x&#39;&gt; &amp;&quot;&lt;/a&gt;");
    }
}
