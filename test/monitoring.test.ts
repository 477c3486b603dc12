/** Alerts, records and dashboard of kustomize/components/monitoring ask for nothing that nobody exposes: such a query says nothing, for ever. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { createTestDatabase } from './database.ts'
import { ROOT } from './process.ts'
import { serve } from './service.ts'

/** What others expose, with the labels that we ask for: Prometheus, kube-state-metrics and the kubelet. */
const ELSEWHERE = {
  up: [],
  kube_deployment_status_replicas_unavailable: ['deployment'],
  kube_cronjob_status_last_successful_time: ['cronjob'],
  kube_cronjob_created: ['cronjob'],
  kubelet_volume_stats_available_bytes: ['persistentvolumeclaim'],
  kubelet_volume_stats_capacity_bytes: ['persistentvolumeclaim'],
}
/** What Prometheus adds to all of these. */
const TARGET = ['job', 'namespace', 'pod', 'instance']

type Rule = { record?: string; expr: string; annotations?: Record<string, string> }
type Query = { expr: string; legendFormat?: string; titleFormat?: string; textFormat?: string }
type Dashboard = {
  templating: object
  annotations: { list: Query[] }
  panels: { targets?: Query[] }[]
}
const read = (name: string) => readFileSync(`${ROOT}kustomize/components/monitoring/${name}`, 'utf8')
const rules: Rule[] = parse(read('rules.yaml')).spec.groups.flatMap((group: { rules: Rule[] }) => group.rules)
const dashboard: Dashboard = JSON.parse(read('dashboard.json'))

const all = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match.slice(1).join(''))

/**
 * What a query names: metrics with the labels that it selects by, and the labels that it groups or matches by. It reads PromQL
 * as it is written here: each selector has a metric's name, and no number has letters.
 */
function namesIn(query: string) {
  const text = query.replaceAll(/"[^"]*"/g, '""').replaceAll(/\[[^\]]*\]/g, '')
  const clauses = /\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g
  const metrics = [...text.replaceAll(clauses, '').matchAll(/([a-z_:][\w:]*)\s*(?:\{([^}]*)\}|(\())?/gi)]
    .filter(([, name = '', , call]) => !call && !['and', 'or', 'unless'].includes(name))
    .map(([, name = '', matchers = '']) => ({ name, labels: all(matchers, /(\w+)\s*[=!]/g) }))
  return { metrics, labels: all(text, clauses).flatMap((list) => all(list, /(\w+)/g)) }
}

/** The text that a service answers to a scrape when it has served, and has refused a request. */
async function scrape(): Promise<string> {
  const database = await createTestDatabase()
  const api = await serve({ DATABASE_URL: database.url, METRICS_PORT: '0' })
  expect((await fetch(`${api.url}/users`)).status).toBe(200)
  await database.drop()
  await expect.poll(async () => (await fetch(`${api.url}/users`)).status).toBe(503)
  const text = await api.metrics()
  await api.stop()
  return text
}

/** Each metric that there is, with its labels. */
async function exposedMetrics() {
  const exposed = new Map<string, string[]>(Object.entries(ELSEWHERE))
  for (const [, name = '', labels = ''] of (await scrape()).matchAll(/^(\w+)(?:\{(.*)\})? \S+$/gm)) {
    exposed.set(name, [...(exposed.get(name) ?? []), ...all(labels, /(\w+)="/g)])
  }
  for (const { record, expr } of rules) if (record) exposed.set(record, namesIn(expr).labels)
  return exposed
}

test('every rule and every query of the dashboard names metrics and labels that there are', async () => {
  const exposed = await exposedMetrics()
  const labelsOf = (name: string) => [...TARGET, ...(exposed.get(name) ?? [])]
  /** What is wrong with a query, and with the labels that are shown of what it finds. */
  const faultsOf = (query: string, shown: string[] = []) => {
    const { metrics, labels } = namesIn(query)
    const known = metrics.flatMap(({ name }) => labelsOf(name))
    return [
      ...metrics.map(({ name }) => name).filter((name) => !exposed.has(name)),
      ...metrics.flatMap((metric) => metric.labels.filter((label) => !labelsOf(metric.name).includes(label))),
      ...[...labels, ...shown].filter((label) => !known.includes(label)),
      ...(metrics.length === 0 ? ['no metric'] : []),
    ].map((fault) => `${fault}: ${query}`)
  }
  expect(faultsOf('nothing{job="users-api"}')).toEqual(['nothing: nothing{job="users-api"}'])
  expect(faultsOf('db_up{state="used"}')).toEqual(['state: db_up{state="used"}'])
  expect(faultsOf('sum by (reason) (db_up)', ['version'])).toHaveLength(2)

  expect(rules.length).toBeGreaterThan(10)
  for (const { expr, annotations = {} } of rules) {
    expect(faultsOf(expr, all(Object.values(annotations).join(), /\$labels\.(\w+)/g))).toEqual([])
  }
  const queries = [...dashboard.annotations.list, ...dashboard.panels.flatMap(({ targets = [] }) => targets)]
  expect(queries.length).toBeGreaterThan(10)
  for (const { expr, legendFormat, titleFormat, textFormat } of queries) {
    expect(faultsOf(expr, all(`${legendFormat} ${titleFormat} ${textFormat}`, /\{\{(\w+)\}\}/g))).toEqual([])
  }
  const [, metric = '', label = ''] = /label_values\((.*), (\w+)\)/.exec(JSON.stringify(dashboard.templating)) ?? []
  expect(faultsOf(metric.replaceAll('\\', ''), [label])).toEqual([])
})
