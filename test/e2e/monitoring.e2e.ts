/**
 * The component monitoring, scraped by a real Prometheus, which is in the PATH. It is told the pods that the PodMonitor selects, as
 * the operator would do. It reaches them through a pod in the namespace monitoring, which alone is let in.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { run } from '../process.ts'
import {
  allGone,
  apply,
  get,
  kubectl,
  list,
  NAMESPACE,
  node,
  type Pod,
  reachable,
  readyApiPods,
  running,
  settled,
  startPod,
  until,
} from './kubectl.ts'

const MONITORING = 'monitoring'
const ELSEWHERE = 'users-e2e-unmonitored'
const POD = 'users-e2e-scraper'
const PORT = 9464
const HINT = "if this is let in: does the cluster's network enforce NetworkPolicies?"

/** Answers what a client asks a forward proxy for (RFC 9112, section 3.2.2). */
const FORWARD = `
  import { createServer, request } from 'node:http'
  createServer((asked, answer) => {
    request(asked.url, (given) => {
      answer.writeHead(given.statusCode, { 'content-type': given.headers['content-type'] })
      given.pipe(answer)
    }).on('error', () => answer.writeHead(502).end()).setTimeout(3000, function () { this.destroy() }).end()
  }).listen(8080)`

type PodMonitor = {
  spec: {
    jobLabel: string
    selector: { matchLabels: Record<string, string> }
    podMetricsEndpoints: { port: string }[]
  }
}
type PodWithPorts = Pod & { spec: { containers: { ports?: { name: string; containerPort: number }[] }[] } }
type Rules = { spec: { groups: object[] } }
type Alert = { state: string; labels: Record<string, string> }
type Sample = { metric: Record<string, string>; value: [number, string] }

/** Whether these tests made the namespace; otherwise somebody's Prometheus lives there. */
let made = false
let api: Pod[]

beforeAll(async () => {
  await running()
  await apply('tests/monitoring')
  await settled()
  await allGone()
  api = await readyApiPods()
  made = await kubectl('create', 'namespace', MONITORING).then(
    () => true,
    () => false,
  )
  await kubectl('create', 'namespace', ELSEWHERE)
  for (const namespace of [MONITORING, ELSEWHERE]) await startPod(namespace, POD, FORWARD)
})

afterAll(async () => {
  const added = ['podmonitor/users-api', 'prometheusrule/users-api']
  await kubectl(
    'delete',
    ...added,
    'networkpolicy/api-from-monitoring',
    'configmap/users-api-dashboard',
    '--ignore-not-found',
  )
  await kubectl('delete', 'namespace', ELSEWHERE, '--ignore-not-found', '--wait=false')
  if (made) await kubectl('delete', 'namespace', MONITORING, '--wait=false')
  else await kubectl(`--namespace=${MONITORING}`, 'delete', 'pod', POD, '--ignore-not-found', '--wait=false')
})

/** What a pod of that namespace gets: the status and the body's first line, or why there is no answer. */
const scrapeFrom = (namespace: string, path = '/metrics', port = PORT) =>
  node(
    POD,
    `const url = 'http://${api[0]?.status.podIP}:${port}${path}'
     const answer = await fetch(url, { signal: AbortSignal.timeout(3000) }).catch((error) => error)
     console.log(answer.status ?? answer.name, answer.ok ? (await answer.text()).split('\\n')[0] : '')`,
    namespace,
  )

test('the namespace monitoring reads the metrics, and nothing else of the API; another namespace reads nothing', async () => {
  expect(await scrapeFrom(MONITORING)).toMatch(/^200 # HELP \w+/)
  expect(await scrapeFrom(MONITORING, '/users', 3000), HINT).not.toMatch(/^\d/)
  expect(await scrapeFrom(MONITORING, '/users')).toMatch(/^404/)
  expect(await scrapeFrom(ELSEWHERE), HINT).not.toMatch(/^\d/)
})

test('through the Ingress there are no metrics', async () => {
  const url = await reachable()
  expect((await fetch(`${url}/users`)).status).toBe(200)
  expect((await fetch(`${url}/metrics`)).status).toBe(404)
})

/** The targets that the PodMonitor means, with the labels that the operator gives them. */
async function targets() {
  const { jobLabel, selector, podMetricsEndpoints } = (await get<PodMonitor>('podmonitor', 'users-api')).spec
  const labels = Object.entries(selector.matchLabels).map(([name, value]) => `${name}=${value}`)
  const pods = await list<PodWithPorts>('pods', `--selector=${labels.join()}`)
  return pods.flatMap(({ metadata, spec, status }) => {
    const ports = spec.containers.flatMap((container) => container.ports ?? [])
    const port = ports.find(({ name }) => name === podMetricsEndpoints[0]?.port)?.containerPort
    const job = metadata.labels?.[jobLabel]
    return { targets: [`${status.podIP}:${port}`], labels: { job, namespace: NAMESPACE, pod: metadata.name } }
  })
}

test('Prometheus scrapes every pod, says that the database is down while it is, and no longer when it is back', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'prometheus-'))
  const forward = run('kubectl', [`--namespace=${MONITORING}`, 'port-forward', `pod/${POD}`, ':8080'])
  const [, forwardProxy] = await forward.printed(/from (127\.0\.0\.1:\d+)/)
  const { groups } = (await get<Rules>('prometheusrule', 'users-api')).spec
  const scraping = {
    job_name: 'pods',
    scrape_interval: '2s',
    scrape_timeout: '2s',
    proxy_url: `http://${forwardProxy}`,
  }
  const config = {
    rule_files: ['rules.yaml'],
    scrape_configs: [{ ...scraping, static_configs: await targets() }],
  }
  await writeFile(join(folder, 'rules.yaml'), JSON.stringify({ groups }))
  await writeFile(join(folder, 'prometheus.yaml'), JSON.stringify(config))
  const files = [`--config.file=${join(folder, 'prometheus.yaml')}`, `--storage.tsdb.path=${join(folder, 'data')}`]
  const prometheus = run('prometheus', [...files, '--web.listen-address=127.0.0.1:0'])
  try {
    const [, address] = await prometheus.printed(/"?Listening on"? .*address=(127\.0\.0\.1:\d+)/)
    await until('Prometheus is ready', 60, async () => (await fetch(`http://${address}/-/ready`)).ok)
    const ask = async <T>(path: string): Promise<T> => {
      const answer = await fetch(`http://${address}/api/v1/${path}`)
      return ((await answer.json()) as { data: T }).data
    }
    const query = async (expr: string) =>
      (await ask<{ result: Sample[] }>(`query?query=${encodeURIComponent(expr)}`)).result
    const databaseDown = async () =>
      (await ask<{ alerts: Alert[] }>('alerts')).alerts.find(({ labels }) => labels.alertname === 'DatabaseDown')

    const reached = `db_up{job="users-api", namespace="${NAMESPACE}"} == 1`
    await until('every pod is scraped, and reaches the database', 120, async () => {
      const found = (await query(reached)).map(({ metric }) => metric.pod)
      return (
        found.sort().join() ===
        api
          .map(({ metadata }) => metadata.name)
          .sort()
          .join()
      )
    })
    expect(await databaseDown()).toBeUndefined()

    await kubectl('scale', 'statefulset/users-db', '--replicas=0')
    const alert = await until('the alert fires', 240, async () => {
      const found = await databaseDown()
      return found?.state === 'firing' && found
    })
    expect(alert.labels).toMatchObject({ namespace: NAMESPACE, severity: 'critical', service: 'users-api' })

    await kubectl('scale', 'statefulset/users-db', '--replicas=1')
    await settled()
    await until('the alert ends', 120, async () => (await databaseDown()) === undefined)
    expect(await query(reached)).not.toEqual([])
  } finally {
    await kubectl('scale', 'statefulset/users-db', '--replicas=1')
    for (const program of [prometheus, forward]) {
      program.process.kill()
      await program.exited
    }
    await rm(folder, { recursive: true })
  }
})
