/** The middle one; NaN if there are none. */
export const median = (numbers: number[]) =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN

/** 12345.6 as 12,346, with its unit; nothing where there is no figure. */
export const whole = (number: number, unit = '') =>
  Number.isNaN(number) ? '' : Math.round(number).toLocaleString('en') + unit

/** A table in Markdown. */
export function table(head: string[], rows: string[][]): string {
  const lines = [head, head.map(() => '---'), ...rows]
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}
