// A table that is a list of cards on a phone. Roles are written out because a changed `display`
// takes them from the elements.

import type { ComponentChildren } from "preact";

export interface Column<T> {
  label: string;
  /** What orders the rows; a column without it cannot be sorted by. */
  by?: (row: T) => number | string;
  cell: (row: T) => ComponentChildren;
  /** Figures stand to the right. */
  number?: boolean;
  /** May be as long as a name, and breaks into lines. */
  text?: boolean;
  /** Left out where there is little room. */
  wide?: boolean;
}

export interface Order {
  label: string;
  down: boolean;
}

interface TableProps<T> {
  caption: string;
  columns: Column<T>[];
  rows: T[];
  id: (row: T) => string;
  order?: Order | null;
  onOrder?: (order: Order) => void;
  empty: ComponentChildren;
}

export function Table<T>({ caption, columns, rows, id, order, onOrder, empty }: TableProps<T>) {
  if (rows.length === 0) return <div class="empty">{empty}</div>;
  const mark = (label: string) =>
    order?.label !== label ? "none" : order.down ? "descending" : "ascending";
  return (
    <div class="table-box">
      <table role="table" aria-label={caption}>
        <thead role="rowgroup">
          <tr role="row">
            {columns.map((column) => (
              <th
                key={column.label}
                role="columnheader"
                scope="col"
                class={kind(column)}
                aria-sort={column.by && onOrder ? mark(column.label) : undefined}
              >
                {column.by && onOrder
                  ? (
                    <button
                      type="button"
                      class="sort"
                      onClick={() =>
                        onOrder({
                          label: column.label,
                          down: order?.label === column.label
                            ? !order.down : column.number === true,
                        })}
                    >
                      {column.label}
                    </button>
                  )
                  : column.label === "" ? <span class="offscreen">Actions</span> : column.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row) => (
            <tr key={id(row)} role="row">
              {columns.map((column) => (
                <td key={column.label} role="cell" class={kind(column)} data-label={column.label}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function ordered<T>(rows: T[], columns: Column<T>[], order: Order | null): T[] {
  const by = columns.find((column) => column.label === order?.label)?.by;
  if (by === undefined || order === null) return rows;
  const sign = order.down ? -1 : 1;
  return rows.toSorted((a, b) => {
    const [x, y] = [by(a), by(b)];
    return x < y ? -sign : x > y ? sign : 0;
  });
}

function kind<T>(column: Column<T>): string {
  const { number, text, wide, label } = column;
  const kinds = [number && "number", text && "text", wide && "wide", label === "" && "actions"];
  return kinds.filter(Boolean).join(" ");
}
