//! Durations as ISO 8601 writes them: `PT1H30M`, `P7D`, `PT0.5S`.

use std::time::Duration;

/// Days, hours, minutes and seconds, the last with a fraction; what Java's `Duration.parse` takes, but for signs.
pub(crate) fn iso_8601(text: &str) -> Option<Duration> {
    let text = text.strip_prefix(['P', 'p'])?;
    let (days, time) = match text.split_once(['T', 't']) {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let units = [('D', days, 86_400), ('H', time, 3_600), ('M', time, 60)];
    let (mut total, mut rest, mut any) = (Duration::ZERO, days, false);
    for (unit, part, seconds) in units {
        if unit == 'H' {
            if !rest.is_empty() {
                return None;
            }
            rest = part;
        }
        if let Some((number, behind)) = rest.split_once([unit, unit.to_ascii_lowercase()]) {
            let count: u64 = digits(number)?.parse().ok()?;
            total = total.checked_add(Duration::from_secs(count.checked_mul(seconds)?))?;
            (rest, any) = (behind, true);
        }
    }
    if let Some(number) = rest.strip_suffix(['S', 's']) {
        let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, "0"));
        let nanos: u32 = format!("{:0<9}", digits(fraction).filter(|f| f.len() <= 9)?).parse().ok()?;
        total = total.checked_add(Duration::new(digits(whole)?.parse().ok()?, nanos))?;
        (rest, any) = ("", true);
    }
    (any && rest.is_empty()).then_some(total)
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_java_reads_them() {
        for (text, ms) in [
            ("PT1H", 3_600_000),
            ("P2DT3H4M5.25S", 183_845_250),
            ("P7D", 604_800_000),
            ("pt0.001s", 1),
            ("PT90M", 5_400_000),
            ("PT0S", 0),
        ] {
            assert_eq!(iso_8601(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for wrong in [
            "",
            "P",
            "PT",
            "1H",
            "PT1",
            "PT1X",
            "P1H",
            "PT1D",
            "PT-1H",
            "-PT1H",
            "PT1M2H",
            "PT.5S",
            "PT99999999999999999999S",
            "P1",
        ] {
            assert_eq!(iso_8601(wrong), None, "{wrong}");
        }
    }
}
