/** Whom the components tracing and auth let the API reach: a collector and a key server, each in a namespace of its own. */
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { generate } from 'selfsigned'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  apiPods,
  apply,
  attempt,
  hurry,
  kubectl,
  NAMESPACE,
  node,
  type Pod,
  readyApiPods,
  running,
  settled,
  startPod,
  until,
} from './kubectl.ts'

const COLLECTOR = 'users-e2e-collector'
const KEYS = 'users-e2e-keys'
const COLLECTOR_PORT = 4318
const KEYS_PORT = 8443
const ISSUER = 'https://id.example.com'
const AUDIENCE = 'https://users.example.com'
const HINT = "if this is 'open': does the cluster's network enforce NetworkPolicies?"

/** A pod is ready when it listens on 8080. */
const READY = `
  import { createServer as createReady } from 'node:net'
  createReady((socket) => socket.end()).listen(8080)`
/** Prints what it is sent, a request a line. */
const COLLECT = `${READY}
  import { createServer } from 'node:http'
  createServer(async (asked, answer) => {
    let body = ''
    for await (const part of asked) body += part
    console.log(asked.method, asked.url, body)
    answer.setHeader('content-type', 'application/json').end('{}')
  }).listen(${COLLECTOR_PORT})`
const serveKeys = (tls: { key: string; cert: string }, keys: object) => `${READY}
  import { createServer } from 'node:https'
  createServer(${JSON.stringify(tls)}, (asked, answer) => {
    answer.setHeader('content-type', 'application/json').end(${JSON.stringify(JSON.stringify(keys))})
  }).listen(${KEYS_PORT})`

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const { publicKey, privateKey } = newKey()
const jwks = { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'e2e', alg: 'ES256', use: 'sig' }] }

/** An access token (RFC 9068) that is good for ten minutes. */
function tokenBy(key: KeyObject): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const now = Math.floor(Date.now() / 1000)
  const whom = { iss: ISSUER, aud: AUDIENCE, sub: 'e2e', client_id: 'e2e', scope: 'users:read users:write' }
  const head = encode({ typ: 'at+jwt', alg: 'ES256', kid: 'e2e' })
  const signed = `${head}.${encode({ ...whom, jti: randomBytes(8).toString('hex'), iat: now, exp: now + 600 })}`
  return `${signed}.${sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}

/** Both components, and the trust in the key server's certificate. One replica is enough, and there soon. */
function change(cert: string): string {
  const container = '/spec/template/spec/containers/0'
  const trust = [
    { op: 'add', path: '/spec/template/spec/volumes/-', value: { name: 'ca', configMap: { name: 'ca' } } },
    { op: 'add', path: `${container}/volumeMounts`, value: [{ name: 'ca', mountPath: '/ca', readOnly: true }] },
    { op: 'add', path: `${container}/env/-`, value: { name: 'NODE_EXTRA_CA_CERTS', value: '/ca/ca.crt' } },
  ]
  // As the head of the component says.
  const namespaceSelector = { matchLabels: { 'kubernetes.io/metadata.name': KEYS } }
  const value = { to: [{ namespaceSelector }], ports: [{ protocol: 'TCP', port: KEYS_PORT }] }
  const inside = [{ op: 'replace', path: '/spec/egress/0', value }]
  const literals = [
    `OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.${COLLECTOR}.svc:${COLLECTOR_PORT}`,
    `AUTH_ISSUER=${ISSUER}`,
    `AUTH_AUDIENCE=${AUDIENCE}`,
    `AUTH_JWKS_URL=https://keys.${KEYS}.svc:${KEYS_PORT}/keys`,
  ]
  const kustomization = {
    components: ['tracing', 'auth'].map((name) => `kustomize/components/${name}`),
    replicas: [{ name: 'users-api', count: 1 }],
    configMapGenerator: [
      { name: 'users-api', namespace: NAMESPACE, behavior: 'merge', literals },
      { name: 'ca', namespace: NAMESPACE, literals: [`ca.crt=${cert}`] },
    ],
    patches: [
      { target: { kind: 'Deployment', name: 'users-api' }, patch: JSON.stringify(trust) },
      { target: { kind: 'NetworkPolicy', name: 'api-to-issuer' }, patch: JSON.stringify(inside) },
    ],
  }
  return Object.entries(kustomization)
    .map(([name, list]) => `${name}: ${JSON.stringify(list)}`)
    .join('\n')
}

let api: string
let collector: Pod
let keys: Pod
let cert: string
const reaches = (pod: Pod, port: number) => node(api, attempt(pod.status.podIP, port))
const oneApiPod = async () => `${(await readyApiPods())[0]?.metadata.name}`

beforeAll(async () => {
  await running()
  const host = `keys.${KEYS}.svc`
  const tls = await generate([{ name: 'commonName', value: host }], {
    keyType: 'ec',
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: host }] }],
  })
  cert = tls.cert
  for (const namespace of [COLLECTOR, KEYS]) await kubectl('create', 'namespace', namespace)
  collector = await startPod(COLLECTOR, 'collector', COLLECT)
  keys = await startPod(KEYS, 'keys', serveKeys({ key: tls.private, cert }, jwks))
  await kubectl(`--namespace=${COLLECTOR}`, 'expose', 'pod/collector', `--port=${COLLECTOR_PORT}`)
  await kubectl(`--namespace=${KEYS}`, 'expose', 'pod/keys', `--port=${KEYS_PORT}`)
  api = await oneApiPod()
})
afterAll(async () => {
  await kubectl('delete', 'networkpolicy', 'api-to-collector', 'api-to-issuer', '--ignore-not-found')
  await kubectl('delete', 'namespace', COLLECTOR, KEYS, '--ignore-not-found', '--wait=false')
})

test('without the components the API reaches neither, though others do', async () => {
  expect(await node('keys', attempt(collector.status.podIP, COLLECTOR_PORT), KEYS)).toBe('open')
  expect(await node('collector', attempt(keys.status.podIP, KEYS_PORT), COLLECTOR)).toBe('open')
  expect(await reaches(collector, COLLECTOR_PORT), HINT).not.toBe('open')
  expect(await reaches(keys, KEYS_PORT), HINT).not.toBe('open')
})

test('with auth and no issuer the new pod does not start, and the others go on', async () => {
  await apply('overlays/gke', 'components: [kustomize/components/auth]')
  const reason = await until('a new pod waits', 120, async () => {
    const statuses = (await apiPods()).flatMap(({ status }) => status.containerStatuses ?? [])
    const reasons = statuses.map(({ state }) => state.waiting?.reason)
    return reasons.find((one) => one && one !== 'PodInitializing' && one !== 'ContainerCreating')
  })
  expect(reason).toBe('CreateContainerConfigError')
  expect(await readyApiPods()).toHaveLength(4)
})

describe('with both', () => {
  beforeAll(async () => {
    await apply('overlays/gke', change(cert))
    await hurry()
    await settled()
    api = await oneApiPod()
  })
  /** The status of the answer that the pod gives itself. */
  const statusOf = (headers: Record<string, string> = {}) =>
    node(
      api,
      `console.log((await fetch('http://localhost:3000/users', { headers: ${JSON.stringify(headers)} })).status)`,
    )

  test('tokens of the issuer are taken, whose keys come from the cluster, and nothing else is', async () => {
    expect(await statusOf({ authorization: `Bearer ${tokenBy(privateKey)}` })).toBe('200')
    expect(await statusOf()).toBe('401')
    expect(await statusOf({ authorization: `Bearer ${tokenBy(newKey().privateKey)}` })).toBe('401')
  })

  test('spans reach the collector', async () => {
    const trace = randomBytes(16).toString('hex')
    const traceparent = `00-${trace}-${randomBytes(8).toString('hex')}-01`
    await statusOf({ authorization: `Bearer ${tokenBy(privateKey)}`, traceparent })
    await until('the collector has the trace', 60, async () => {
      const lines = (await kubectl(`--namespace=${COLLECTOR}`, 'logs', 'collector')).split('\n')
      return lines.some((line) => line.startsWith('POST /v1/traces') && line.includes(trace))
    })
  })

  test('no other port of theirs is open, and none of others', async () => {
    expect(await reaches(collector, COLLECTOR_PORT)).toBe('open')
    expect(await reaches(keys, KEYS_PORT)).toBe('open')
    for (const pod of [collector, keys]) expect(await reaches(pod, 8080), HINT).not.toBe('open')
  })
})
