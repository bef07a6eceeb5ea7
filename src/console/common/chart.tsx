// Lines over time, drawn as SVG.

import { useState } from "preact/hooks";
import { clock } from "./format";

/** One line of a chart. */
export interface Series {
  label: string;
  /** Which of the sheet's colours it has. */
  tone: 1 | 2;
  values: number[];
}

interface ChartProps {
  title: string;
  times: number[];
  series: Series[];
  format: (value: number) => string;
  /** Least height of the scale. */
  least?: number;
}

const WIDTH = 600;
const HEIGHT = 160;

/** A chart with a scale, a legend, and values where the pointer is. */
export function Chart({ title, times, series, format, least = 1 }: ChartProps) {
  const [at, setAt] = useState<number | null>(null);
  const top = nice(Math.max(least, ...series.flatMap((line) => line.values)));
  const last = times.length - 1;
  const shown = at === null ? last : Math.min(at, last);
  const onMove = (event: PointerEvent) => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    const part = (event.clientX - box.left) / box.width;
    setAt(last < 1 ? null : Math.round(Math.min(1, Math.max(0, part)) * last));
  };
  const summary = series.map((line) => `${line.label} ${format(line.values[last] ?? 0)}`);
  const x = (index: number) => (last < 1 ? WIDTH : (index / last) * WIDTH);
  return (
    <figure class="chart">
      <figcaption>
        <span class="chart-title">{title}</span>
        <span class="legend">
          {series.map((line) => (
            <span key={line.label} class={`key tone-${line.tone}`}>
              {line.label} <b>{format(line.values[shown] ?? 0)}</b>
            </span>
          ))}
          {at !== null && <span class="soft">{clock(times[shown] ?? 0)}</span>}
        </span>
      </figcaption>
      <div class="plot" onPointerMove={onMove} onPointerLeave={() => setAt(null)}>
        <svg
          viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
          preserveAspectRatio="none"
          role="img"
          aria-label={`${title}, now: ${summary.join(", ")}`}
        >
          {[0.25, 0.5, 0.75].map((part) => (
            <line key={part} class="grid" x1="0" x2={WIDTH} y1={HEIGHT * part} y2={HEIGHT * part} />
          ))}
          {series.map((line) => (
            <g key={line.label} class={`tone-${line.tone}`}>
              <path class="area" d={area(line.values, top)} />
              <path class="curve" d={curve(line.values, top)} />
            </g>
          ))}
          {at !== null && <line class="cross" x1={x(shown)} x2={x(shown)} y1="0" y2={HEIGHT} />}
        </svg>
        <span class="scale top">{format(top)}</span>
        <span class="scale middle">{format(top / 2)}</span>
        <span class="scale bottom">{ago(times)}</span>
      </div>
    </figure>
  );
}

/** A line without words, beside a number that has them. */
export function Spark({ values, tone = 1 }: { values: number[]; tone?: 1 | 2 }) {
  const top = Math.max(1e-9, ...values) * 1.1;
  return (
    <svg
      class={`spark tone-${tone}`}
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      <path class="area" d={area(values, top)} />
      <path class="curve" d={curve(values, top)} />
    </svg>
  );
}

function curve(values: number[], top: number): string {
  if (values.length < 2) return "";
  const step = WIDTH / (values.length - 1);
  const points = values.map((value, index) => {
    const y = HEIGHT - (Math.min(value, top) / top) * (HEIGHT - 4) - 2;
    return `${(index * step).toFixed(1)} ${y.toFixed(1)}`;
  });
  return `M${points.join("L")}`;
}

function area(values: number[], top: number): string {
  const line = curve(values, top);
  return line === "" ? "" : `${line}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`;
}

/** The next of 1, 2, 4, 6, 8, 10, 20, ... at or above a value: its half is round, too. */
function nice(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 2, 4, 6, 8, 10];
  return (steps.find((step) => step * power >= value * 0.999) ?? 10) * power;
}

function ago(times: number[]): string {
  const [first, last] = [times[0], times[times.length - 1]];
  if (first === undefined || last === undefined || last - first < 5_000) return "";
  const seconds = Math.round((last - first) / 1000);
  return seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
}
