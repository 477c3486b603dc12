import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { parse } from 'yaml'
import { ROOT } from '../process.ts'

const RULES = join(ROOT, 'kustomize/components/monitoring/rules.yaml')
const TESTS = join(import.meta.dirname, 'alerts.yaml')

type Rule = { alert?: string; record?: string; expr: string }
const { spec }: { spec: { groups: { rules: Rule[] }[] } } = parse(readFileSync(RULES, 'utf8'))
type UnitTest = { promql_expr_test?: object[]; alert_rule_test?: { alertname: string; exp_alerts: object[] }[] }
const { tests }: { tests: UnitTest[] } = parse(readFileSync(TESTS, 'utf8'))

/** Runs promtool where the rules are a file of Prometheus, and the tests stand beside it. */
function promtool(...args: string[]) {
  const folder = mkdtempSync(join(tmpdir(), 'rules-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'rules.yaml'), JSON.stringify(spec))
  cpSync(TESTS, join(folder, 'alerts.yaml'))
  const { status, stdout, stderr } = spawnSync('promtool', args, { cwd: folder, encoding: 'utf8' })
  return { status, output: stdout + stderr }
}

test('promtool reads the rules, and has nothing to say against them', () => {
  const { status, output } = promtool('check', 'rules', '--lint=all', '--lint-fatal', 'rules.yaml')
  expect(status, output).toBe(0)
})

test('alerts fire when they should, and not otherwise', () => {
  const { status, output } = promtool('test', 'rules', 'alerts.yaml')
  expect(status, output).toBe(0)
})

test('every alert has a test in which it fires', () => {
  const fired = new Set<string>()
  for (const { promql_expr_test = [], alert_rule_test = [] } of tests) {
    for (const [, name = ''] of JSON.stringify(promql_expr_test).matchAll(/\{alertname=\\"(\w+)\\"/g)) fired.add(name)
    for (const { alertname, exp_alerts } of alert_rule_test) if (exp_alerts.length > 0) fired.add(alertname)
  }
  const alerts = spec.groups.flatMap(({ rules }) => rules.flatMap(({ alert }) => alert ?? []))
  expect([...fired].sort()).toEqual(alerts.sort())
})
