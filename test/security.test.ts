import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ROOT } from './process.ts'

const PAGE_MAX_LINES = 60

const page = readFileSync(`${ROOT}SECURITY.md`, 'utf8').trimEnd().split('\n')
/** The table of threats, without its head. */
const threats = page
  .filter((line) => line.startsWith('| '))
  .slice(2)
  .map((line) => line.split('|').map((cell) => cell.trim()))
  .map(([, threat = '', measures = '', tests = '', left = '']) => ({ threat, measures, tests, left }))

test.each(threats)('$threat: it is said what stands against it, which tests hold that, and what is left', (row) => {
  expect(Object.values(row)).not.toContain('')
  const files = [...row.tests.matchAll(/\]\(([^)]+)\)/g)].map(([, file = '']) => file)
  expect(files.length).toBeGreaterThan(0)
  expect(files.filter((file) => !/\.(test|e2e)\.ts$/.test(file) || !existsSync(ROOT + file))).toEqual([])
})

test('the threat model is a page', () => {
  expect(threats.length).toBeGreaterThan(10)
  expect(page.length).toBeLessThanOrEqual(PAGE_MAX_LINES)
})
