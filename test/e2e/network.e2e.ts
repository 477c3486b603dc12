import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  attempt,
  type ContainerStatus,
  get,
  kubectl,
  node,
  type Pod,
  reachable,
  readyApiPods,
  running,
  startPod,
} from './kubectl.ts'

const ELSEWHERE = 'users-e2e-elsewhere'
const HINT = "if this is 'open' everywhere: does the cluster's network enforce NetworkPolicies?"

/** What pods in another namespace run. */
const LISTEN = `
  import { createServer } from 'node:net'
  for (const port of [8080, 5432, 443, 8443]) createServer((socket) => socket.end()).listen(port)`

let strangers: Pod[]
let api: Pod[]
let database: Pod
beforeAll(async () => {
  await running()
  await kubectl('create', 'namespace', ELSEWHERE)
  strangers = [await startPod(ELSEWHERE, 'one', LISTEN), await startPod(ELSEWHERE, 'two', LISTEN)]
  api = await readyApiPods()
  database = await get<Pod>('pod', 'users-db-0')
})
afterAll(() => kubectl('delete', 'namespace', ELSEWHERE, '--ignore-not-found', '--wait=false'))

const ip = (pod: Pod | undefined) => `${pod?.status.podIP}`
const fromStranger = (host: string, port: number) => node('one', attempt(host, port), ELSEWHERE)
const fromApi = (host: string, port: number) => node(`${api[0]?.metadata.name}`, attempt(host, port))

test('a stranger pod reaches other strangers, but neither the API nor the database', async () => {
  expect(await fromStranger(ip(strangers[1]), 8080)).toBe('open')
  expect(await fromStranger(ip(api[0]), 3000), HINT).not.toBe('open')
  expect(await fromStranger('users-api.users.svc', 80), HINT).not.toBe('open')
  expect(await fromStranger(ip(database), 5432), HINT).not.toBe('open')
  expect(await fromStranger('users-db.users.svc', 5432), HINT).not.toBe('open')
})

test('through the Ingress everybody reaches the API: its users, and nothing of its inside', async () => {
  const url = await reachable()
  expect((await fetch(`${url}/users`)).status).toBe(200)
  for (const path of ['/openapi.json', '/docs']) expect((await fetch(url + path)).status, path).toBe(200)
  const [asset = ''] = /\/assets\/[^"]+/.exec(await (await fetch(`${url}/docs`)).text()) ?? []
  expect((await fetch(url + asset)).status).toBe(200)
  expect((await fetch(url, { headers: { accept: 'text/html' }, redirect: 'manual' })).status).toBe(302)
  for (const inside of ['/livez', '/readyz', '/metrics']) expect((await fetch(url + inside)).status, inside).toBe(404)
})

test('the API reaches the database and DNS, and at other ports no other pod', async () => {
  expect(await fromApi('users-db-0.users-db', 5432)).toBe('open')
  expect(
    await node(
      `${api[0]?.metadata.name}`,
      `
    import { lookup } from 'node:dns/promises'
    console.log((await lookup('users-db-0.users-db')).address)`,
    ),
  ).toBe(ip(database))
  expect(await fromApi(ip(strangers[0]), 8080), HINT).not.toBe('open')
  expect(await fromApi(ip(strangers[0]), 5432), HINT).not.toBe('open')
  expect(await fromApi(ip(api[1]), 3000), HINT).not.toBe('open')
})

test('the init container reached the Kubernetes API: the Secret is there, and it is its', async () => {
  const labels = (await get('secret', 'users-db')).metadata.labels
  expect(labels).toMatchObject({ 'app.kubernetes.io/managed-by': 'ensure-secret' })
  const ended = (status: ContainerStatus) => [status.name, status.state.terminated?.exitCode]
  for (const { status } of api) expect(status.initContainerStatuses?.map(ended)).toContainEqual(['ensure-secret', 0])
})

test("the port of GKE's API server is open to every host, as kustomize/README.md says, and those of other clusters are not", async () => {
  expect(await fromApi(ip(strangers[0]), 443)).toBe('open')
  expect(await fromApi(ip(strangers[0]), 8443), HINT).not.toBe('open')
})

test('the database reaches nobody', async () => {
  const attempts = [`${ip(strangers[0])}/8080`, `${ip(api[0])}/3000`]
  for (const target of attempts) {
    const said = await kubectl(
      'exec',
      'users-db-0',
      '--',
      'bash',
      '-c',
      `timeout 3 bash -c '</dev/tcp/${target}' && echo open || echo closed`,
    )
    expect(said, HINT).toBe('closed')
  }
})
