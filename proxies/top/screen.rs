//! The screen of the live view: the head, the total rate of the last minute, a table, and a line for keys and questions.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table, TableState};

use super::history::History;
use super::keys::{Keys, Mode};
use super::tables::{Page, head};

/// Draws the page that the user has chosen.
pub fn draw(frame: &mut Frame<'_>, history: &History, keys: &mut Keys) {
    let rows = [
        Constraint::Length(2),
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ];
    let [top, rates, tabs, body, bottom] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(head(history).map(Line::from).to_vec()), top);
    let total: Vec<u64> = history
        .series("bytes_sent")
        .iter()
        .zip(history.series("bytes_received"))
        .map(|(sent, got)| sent + got)
        .collect();
    frame.render_widget(
        Sparkline::default().data(&total[total.len().saturating_sub(usize::from(rates.width))..]),
        rates,
    );
    frame.render_widget(Paragraph::new(tab_line(keys.page)), tabs);
    match keys.mode {
        Mode::Help => frame.render_widget(Paragraph::new(HELP), body),
        _ => draw_table(frame, history, keys, body),
    }
    frame.render_widget(Paragraph::new(bottom_line(history, keys)), bottom);
}

fn tab_line(shown: Page) -> Line<'static> {
    let spans = Page::ALL.iter().zip(1..).flat_map(|(page, number)| {
        let style = if *page == shown { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        [Span::styled(format!(" {number} {} ", page.title()), style), Span::raw(" ")]
    });
    Line::from(spans.collect::<Vec<_>>())
}

fn draw_table(frame: &mut Frame<'_>, history: &History, keys: &mut Keys, area: Rect) {
    let (table, sort) = (keys.table(history), keys.sort());
    let title = |(column, title): (usize, &&'static str)| {
        let style = Style::new().add_modifier(if column == sort {
            Modifier::BOLD | Modifier::UNDERLINED
        } else {
            Modifier::BOLD
        });
        Cell::new(*title).style(style)
    };
    let widths =
        table.widths.iter().map(|width| if *width == 0 { Constraint::Min(10) } else { Constraint::Length(*width) });
    let header = Row::new(table.titles.iter().enumerate().map(title));
    let rows = table.rows.iter().map(|row| Row::new(row.cells.iter().map(|cell| Cell::new(cell.as_str()))));
    let widget = Table::new(rows, widths.collect::<Vec<_>>())
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected((!table.rows.is_empty()).then_some(keys.selected));
    frame.render_stateful_widget(widget, area, &mut state);
}

fn bottom_line(history: &History, keys: &Keys) -> String {
    match (&keys.mode, &keys.note, history.silence()) {
        (Mode::Question(order), ..) => format!("close {}? (y/n)", order.about),
        (Mode::Filter, ..) => format!("filter: {}_", keys.filter),
        (_, Some(note), _) => note.clone(),
        (_, None, Some(silence)) => format!("no answer: {silence}"),
        _ if !keys.filter.is_empty() => format!("filter: {} (Esc: all)", keys.filter),
        _ => "q leave  Tab page  s sort  / filter  x close  ? help".to_owned(),
    }
}

const HELP: &str = "\
q, Ctrl-C        leave
1 2 3 4, Tab     connections, links, listeners and forwards, ends
arrows, j, k     select a row; PageUp, PageDown, Home, End
s                sort by the next column (underlined)
/                filter: rows that contain the text; Esc shows all again
x                close the selected connection, link or forward, after a question
?                this help; any key leaves it";
