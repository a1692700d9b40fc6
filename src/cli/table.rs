//! Plain tables: a line under the head, numbers to the right, no frames.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Which side a column's text stands on.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Left,
    Right,
}

/// A table of text with a head.
pub(super) fn table(columns: &[(&str, Side)], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.0));
    table.add_rows(rows);
    for (idx, (_, side)) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(idx) {
            column.set_cell_alignment(match side {
                Side::Left => CellAlignment::Left,
                Side::Right => CellAlignment::Right,
            });
            column.set_padding((if idx == 0 { 0 } else { 1 }, 1));
        }
    }
    table.trim_fmt() + "\n"
}
