/** The components monitoring and monitoring-gke, as far as it can be told without a cluster; test/e2e/monitoring.e2e.ts scrapes. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { apiContainers, build, buildMine, environmentOf, ROOT } from './build.ts'

const COMPONENT = join(ROOT, 'components/monitoring')
const RUNBOOK = /^https:\/\/github\.com\/[\w-]+\/[\w-]+\/blob\/main\/kustomize\/README\.md#alerts$/

type Rule = { alert?: string; annotations?: Record<string, string> }
const { spec }: { spec: { groups: { rules: Rule[] }[] } } = parse(readFileSync(join(COMPONENT, 'rules.yaml'), 'utf8'))
const alerts = spec.groups.flatMap(({ rules }) => rules).filter(({ alert }) => alert)

describe.each([
  ['monitoring', 'PrometheusRule', 'PodMonitor', 'podMetricsEndpoints', ['monitoring']],
  ['monitoring-gke', 'Rules', 'PodMonitoring', 'endpoints', ['gmp-system', 'gke-gmp-system']],
])('the component %s', (component, rules, monitor, endpoints, namespaces) => {
  const manifests = build(`tests/${component}`)
  const specOf = (kind: string, name = 'users-api') =>
    manifests.find((manifest) => manifest.kind === kind && manifest.metadata.name === name)?.spec
  const api = apiContainers(manifests).get('api')
  const from = [
    {
      namespaceSelector: {
        matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'In', values: namespaces }],
      },
    },
  ]

  test('has the rules of the one file', () => {
    expect(specOf(rules)).toEqual(spec)
  })

  test('lets Prometheus, and nobody else, in at the port at which the metrics are, and at no other', () => {
    const port = Number(api && environmentOf(api, manifests).get('METRICS_PORT'))
    expect(port).toBeGreaterThan(0)
    expect(api?.ports).toContainEqual({ name: 'metrics', containerPort: port })
    expect(specOf(monitor)).toMatchObject({
      selector: { matchLabels: { 'app.kubernetes.io/name': 'users-api' } },
      [endpoints]: [{ port: 'metrics' }],
    })
    expect(specOf('NetworkPolicy', 'api-from-monitoring')).toEqual({
      podSelector: { matchLabels: { 'app.kubernetes.io/name': 'users-api' } },
      policyTypes: ['Ingress'],
      ingress: [{ from, ports: [{ protocol: 'TCP', port }] }],
    })
    const others = manifests.filter(({ kind }) => ['Service', 'Ingress', 'BackendConfig'].includes(kind))
    expect(others.length).toBeGreaterThan(2)
    expect(JSON.stringify(others)).not.toMatch(new RegExp(`metrics|${port}`))
  })

  test("lets it in at the metrics of CloudNativePG's servers, too", () => {
    const selector = { matchLabels: { 'cnpg.io/cluster': 'users-db' } }
    expect(specOf(monitor, 'users-db')).toMatchObject({ selector, [endpoints]: [{ port: 'metrics' }] })
    expect(specOf('NetworkPolicy', 'cluster-from-monitoring')).toEqual({
      podSelector: selector,
      policyTypes: ['Ingress'],
      ingress: [{ from, ports: [{ protocol: 'TCP', port: 9187 }] }],
    })
  })

  test('has a dashboard that Grafana finds, under a name that stays', () => {
    const dashboard = manifests.find(({ metadata }) => metadata.name === 'users-api-dashboard')
    expect(dashboard?.metadata).toMatchObject({ labels: { grafana_dashboard: '1' } })
    expect(dashboard?.data).toEqual({ 'users-api.json': readFileSync(join(COMPONENT, 'dashboard.json'), 'utf8') })
  })
})

test.each([
  ['monitoring', 'monitoring-gke'],
  ['monitoring-gke', 'monitoring'],
])('%s and %s cannot be built together: each pod would be scraped and judged twice', (...names) => {
  const components = names.map((name) => `../../components/${name}`)
  expect(() => buildMine({ resources: ['../gke'], components })).toThrow()
})

test('every alert leads to the table in README.md, which has a row for each and for no other', () => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
  const [, section = ''] = readme.split('### Alerts\n')
  const rows = [...(section.split('\n## ')[0] ?? '').matchAll(/^\| (\w+) \| [^|]+ \| [^|]+ \|$/gm)].map(
    ([, name]) => name,
  )
  expect(rows.filter((name) => name !== 'alert')).toEqual(alerts.map(({ alert }) => alert))
  for (const { annotations } of alerts) expect(annotations?.runbook_url).toMatch(RUNBOOK)
})
