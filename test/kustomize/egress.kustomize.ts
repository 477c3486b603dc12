/**
 * The components auth, auth-iap and tracing, as far as it can be told without a cluster: whom they let the API reach.
 * test/e2e/egress.e2e.ts tries it.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { buildMine, type Manifest, merged, needed, ROOT } from './build.ts'

const API = { matchLabels: { 'app.kubernetes.io/name': 'users-api' } }
const PRIVATE = ['10.0.0.0/8', '100.64.0.0/10', '169.254.0.0/16', '172.16.0.0/12', '192.168.0.0/16']
const INTERNET = {
  to: [{ ipBlock: { cidr: '0.0.0.0/0', except: PRIVATE } }],
  ports: [{ protocol: 'TCP', port: 443 }],
}
const inNamespace = (namespace: string, port: number) => ({
  to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } } }],
  ports: [{ protocol: 'TCP', port }],
})
const policiesOf = (manifests: Manifest[]) => manifests.filter(({ kind }) => kind === 'NetworkPolicy')
const policy = (manifests: Manifest[], name: string) =>
  policiesOf(manifests).find(({ metadata }) => metadata.name === name)?.spec
const components = (...names: string[]) => names.map((name) => `../../components/${name}`)
const collectorAt = (endpoint: string) => merged(`OTEL_EXPORTER_OTLP_ENDPOINT=${endpoint}`)

test.each([
  ['gke', []],
  ['gke', ['gateway-gke']],
  ['gke', ['external-secrets', 'cloudsql']],
  ['gke-staging', []],
  ['minikube', ['monitoring', 'hpa']],
])('on %s with %j each adds one policy, and changes no other', (overlay, others) => {
  const configMapGenerator = [...needed, ...collectorAt('http://collector.observability.svc:4318')]
  const mine = { resources: [`../${overlay}`], configMapGenerator }
  const before = policiesOf(buildMine({ ...mine, components: components(...others) }))
  const after = policiesOf(buildMine({ ...mine, components: components(...others, 'tracing', 'auth', 'auth-iap') }))
  const existed = ({ metadata }: Manifest) => before.some((one) => one.metadata.name === metadata.name)
  expect(after.filter(existed)).toEqual(before)
  const added = after.filter((one) => !existed(one)).map(({ metadata, spec }) => [metadata.name, spec])
  const to = (...egress: object[]) => ({ podSelector: API, policyTypes: ['Egress'], egress })
  expect(Object.fromEntries(added)).toEqual({
    'api-to-collector': to(inNamespace('observability', 4318)),
    'api-to-iap': to(INTERNET),
    'api-to-issuer': to(INTERNET),
  })
})

test.each(['http://collector.tempo.svc:4318', 'https://collector.tempo.svc.cluster.local:4318/otlp'])(
  'tracing reads the namespace in %s',
  (endpoint) => {
    const manifests = buildMine({
      resources: ['../gke'],
      components: components('tracing'),
      configMapGenerator: collectorAt(endpoint),
    })
    expect(policy(manifests, 'api-to-collector')?.egress).toEqual([inNamespace('tempo', 4318)])
  },
)

test('tracing does not take an endpoint without a namespace, or of another form', () => {
  const built = (endpoint: string) =>
    buildMine({
      resources: ['../gke'],
      components: components('tracing'),
      configMapGenerator: collectorAt(endpoint),
    })
  expect(() => built('http://collector:4318')).toThrow('index 1 is out of bounds')
  // The API server refuses a label with a colon.
  const egress = JSON.stringify(policy(built('http://collector.tempo:4318'), 'api-to-collector')?.egress)
  expect(egress).toContain('"kubernetes.io/metadata.name":"tempo:4318"')
})

test('the patch that the head of auth shows leads to a key server in the cluster, and nowhere else', () => {
  const head = readFileSync(join(ROOT, 'components/auth/kustomization.yaml'), 'utf8').split('\napiVersion')[0] ?? ''
  const [, shown = ''] = /^# +(patches:\n.*)/ms.exec(head.replace('NAMESPACE', 'identity')) ?? []
  const { patches } = parse(shown.replaceAll(/^# {3}/gm, ''))
  const manifests = buildMine({ resources: ['../gke'], components: components('auth'), patches })
  expect(policy(manifests, 'api-to-issuer')?.egress).toEqual([inNamespace('identity', 8443)])
})
