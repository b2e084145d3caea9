//! The keys of the live view.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::History;
use super::source::Order;
use super::tables::{Page, Table};

/// The choices that the user has made with keys.
#[derive(Default)]
pub struct Keys {
    pub page: Page,
    /// The column by which each page is sorted.
    sorts: [usize; Page::ALL.len()],
    /// The selected row.
    pub selected: usize,
    pub filter: String,
    pub mode: Mode,
    /// The result of the last command.
    pub note: Option<String>,
}

/// The use of the next key.
#[derive(Default)]
pub enum Mode {
    /// A command of the view.
    #[default]
    View,
    /// A letter of the filter.
    Filter,
    /// The answer to a question about closing a record.
    Question(Order),
    /// Any key leaves the help.
    Help,
}

/// The result of a key.
pub enum Step {
    /// The view goes on.
    Stay,
    /// The view ends.
    Leave,
    /// A record is closed.
    Close(Order),
}

impl Keys {
    /// Takes a key.
    pub fn press(&mut self, key: KeyEvent, history: &History) -> Step {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Step::Leave } else { Step::Stay };
        }
        match std::mem::take(&mut self.mode) {
            Mode::View => return self.command(key.code, history),
            Mode::Filter => self.letter(key.code),
            Mode::Question(order) if key.code == KeyCode::Char('y') => return Step::Close(order),
            Mode::Question(_) => self.note("nothing was closed".to_owned()),
            Mode::Help => {}
        }
        Step::Stay
    }

    fn command(&mut self, code: KeyCode, history: &History) -> Step {
        self.note = None;
        let pages = Page::ALL.len();
        let at = Page::ALL.iter().position(|page| *page == self.page).unwrap_or(0);
        match code {
            KeyCode::Char('q') => return Step::Leave,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char(digit @ '1'..='4') => self.turn_to(digit as usize - '1' as usize),
            KeyCode::Tab | KeyCode::Right => self.turn_to((at + 1) % pages),
            KeyCode::BackTab | KeyCode::Left => self.turn_to((at + pages - 1) % pages),
            KeyCode::Down | KeyCode::Char('j') => self.selected = self.selected.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::PageDown => self.selected = self.selected.saturating_add(PAGE_ROWS),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(PAGE_ROWS),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = usize::MAX,
            KeyCode::Char('s') => {
                let columns = self.table(history).titles.len();
                self.sorts[at] = (self.sorts[at] + 1) % columns;
            }
            KeyCode::Char('x') | KeyCode::Delete => self.ask_to_close(history),
            _ => {}
        }
        Step::Stay
    }

    fn letter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => return,
            KeyCode::Esc => return self.filter.clear(),
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(letter) if self.filter.len() < FILTER_BYTES_MAX => self.filter.push(letter),
            _ => {}
        }
        self.mode = Mode::Filter;
    }

    fn turn_to(&mut self, page: usize) {
        self.page = Page::ALL[page];
        self.selected = 0;
    }

    fn ask_to_close(&mut self, history: &History) {
        match self.table(history).rows.get(self.selected).and_then(|row| row.close.clone()) {
            Some(order) => self.mode = Mode::Question(order),
            None => self.note("this row cannot be closed".to_owned()),
        }
    }

    /// Shows a text until the next command.
    pub fn note(&mut self, text: String) {
        self.note = Some(text);
    }

    /// Returns the table of the page, and keeps the selection within it.
    pub fn table(&mut self, history: &History) -> Table {
        let table = self.page.table(history, self.sort(), &self.filter);
        self.selected = self.selected.min(table.rows.len().saturating_sub(1));
        table
    }

    /// Returns the column by which the page is sorted.
    pub fn sort(&self) -> usize {
        Page::ALL.iter().position(|page| *page == self.page).map_or(0, |at| self.sorts[at])
    }
}

/// Rows that the keys of whole pages move by.
const PAGE_ROWS: usize = 10;
const FILTER_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn history() -> History {
        let mut history = History::default();
        history.take(json!({ "pid": 7, "uptime_seconds": 1.0, "connections": [
            { "id": "0.1", "thread": 0, "conn": "a", "source": {} },
            { "id": "0.2", "thread": 0, "conn": "zone", "source": {} },
        ] }));
        history
    }

    fn press(keys: &mut Keys, code: KeyCode) -> Step {
        keys.press(KeyEvent::new(code, KeyModifiers::NONE), &history())
    }

    #[test]
    fn q_and_ctrl_c_leave_in_every_mode() {
        for before in [None, Some('/'), Some('?'), Some('x')] {
            let mut keys = Keys::default();
            before.into_iter().for_each(|letter| _ = press(&mut keys, KeyCode::Char(letter)));
            let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert!(matches!(keys.press(ctrl_c, &history()), Step::Leave), "{before:?}");
        }
        assert!(matches!(press(&mut Keys::default(), KeyCode::Char('q')), Step::Leave));
    }

    #[test]
    fn a_record_is_closed_after_the_question_alone() {
        let mut keys = Keys::default();
        assert!(matches!(press(&mut keys, KeyCode::Down), Step::Stay));
        assert!(matches!(press(&mut keys, KeyCode::Char('x')), Step::Stay));
        assert!(matches!(press(&mut keys, KeyCode::Char('n')), Step::Stay));
        press(&mut keys, KeyCode::Char('x'));
        let Step::Close(order) = press(&mut keys, KeyCode::Char('y')) else { panic!("closed") };
        assert_eq!(order.body, json!({ "connection": "0.2", "thread": 0 }));
        press(&mut keys, KeyCode::Char('4'));
        press(&mut keys, KeyCode::Char('x'));
        assert!(keys.note.is_some() && matches!(keys.mode, Mode::View), "an end cannot be closed");
    }

    #[test]
    fn a_filter_is_typed_and_left_and_the_selection_stays_within_the_rows() {
        let mut keys = Keys::default();
        press(&mut keys, KeyCode::End);
        assert_eq!((keys.table(&history()).rows.len(), keys.selected), (2, 1));
        for code in [KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Backspace, KeyCode::Char('z'), KeyCode::Enter] {
            assert!(matches!(press(&mut keys, code), Step::Stay));
        }
        assert_eq!((keys.table(&history()).rows.len(), keys.filter.as_str(), keys.selected), (1, "z", 0));
        press(&mut keys, KeyCode::Esc);
        assert_eq!(keys.filter, "");
    }
}
