//! The plot of recall by scope, as SVG.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::corpus::ask::Recall;

/// Shares that are drawn for each scope, and their colours, which can be told apart in light and dark and by people who see few colours.
const SERIES: [(&str, &str); 3] = [("any@1", "#8fb8de"), ("any@5", "#3d7ab8"), ("any@10", "#1b4a7a")];

const SCOPES: [&str; 4] = ["session", "private", "tenant", "public"];

pub(crate) fn recall(recalls: &BTreeMap<&'static str, Recall>) -> String {
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 300\" role=\"img\" aria-label=\"Share of questions whose answer was \
         found, by scope\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<rect width=\"640\" height=\"300\" fill=\"#ffffff\"/>\n",
    );
    let height = |share: f64| share * 200.0;
    for percent in [0, 25, 50, 75, 100] {
        let y = 240.0 - height(f64::from(percent) / 100.0);
        let _ = writeln!(
            svg,
            "<path d=\"M60 {y}H620\" stroke=\"#d8dee4\"/><text x=\"52\" y=\"{:.0}\" text-anchor=\"end\" fill=\"#57606a\">{percent} %</text>",
            y + 4.0
        );
    }
    for (number, (name, colour)) in SERIES.iter().enumerate() {
        let x = 60 + number * 90;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"12\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"23\" fill=\"#24292f\">{name}</text>",
            x + 18
        );
    }
    for (group, scope) in SCOPES.iter().enumerate() {
        let Some(recall) = recalls.get(scope) else { continue };
        let left = 80 + group * 138;
        for (bar, (count, (_, colour))) in [recall.at_1, recall.at_5, recall.at_10].into_iter().zip(SERIES).enumerate() {
            let share = recall.share(count);
            let (x, tall) = (left + bar * 36, height(share));
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{:.1}\" width=\"32\" height=\"{tall:.1}\" fill=\"{colour}\"/><text x=\"{}\" y=\"{:.0}\" text-anchor=\"middle\" font-size=\"11\" fill=\"#24292f\">{:.0}</text>",
                240.0 - tall,
                x + 16,
                236.0 - tall,
                share * 100.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"262\" text-anchor=\"middle\" fill=\"#24292f\">{scope}</text><text x=\"{0}\" y=\"280\" text-anchor=\"middle\" font-size=\"11\" fill=\"#57606a\">{} questions</text>",
            left + 52,
            recall.questions
        );
    }
    svg.push_str("</svg>\n");
    svg
}
