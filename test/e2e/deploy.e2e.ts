import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  apiPods,
  apply,
  deleteNamespace,
  get,
  imageOf,
  KUSTOMIZE,
  kubectl,
  kubectlWithInput,
  list,
  node,
  type Pod,
  psql,
  reachable,
  running,
  STAGING,
  settled,
} from './kubectl.ts'

const KINDS =
  'namespaces,serviceaccounts,roles,rolebindings,configmaps,services,deployments,statefulsets,poddisruptionbudgets,ingresses,networkpolicies'

/** What was applied, by kind and name. */
async function versions(): Promise<Map<string, string>> {
  const objects = await list(KINDS, '--selector=app.kubernetes.io/part-of=users-api')
  return new Map(objects.map(({ kind, metadata }) => [`${kind}/${metadata.name}`, metadata.resourceVersion]))
}

const restarts = (pods: Pod[]) =>
  pods.flatMap(({ metadata, status }) =>
    [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])]
      .filter(({ restartCount }) => restartCount > 0)
      .map(({ name, restartCount }) => `${metadata.name} ${name} ${restartCount}`),
  )

async function createsAndListsUsers(url: string) {
  const user = { username: 'Alice', email: 'alice@example.com' }
  const created = await fetch(`${url}/users`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(user),
  })
  expect(created.status).toBe(201)
  expect(await created.json()).toMatchObject(user)
  const listed = await fetch(`${url}/users`)
  expect(listed.status).toBe(200)
  expect(await listed.json()).toMatchObject({ users: [user], next: null })
}

describe('kubectl apply -k kustomize/overlays/gke on a cluster without it', () => {
  let url: string
  beforeAll(async () => {
    await deleteNamespace()
    await apply('overlays/gke')
    await settled()
    url = await reachable()
  })

  test('is all it takes: four pods are ready, and users are created and listed through the Ingress', async () => {
    expect(await apiPods()).toHaveLength(4)
    await createsAndListsUsers(url)
  })

  test('of the four pods that started on an empty database one migrated it, and none crashed', async () => {
    const pods = await list<Pod>('pods')
    expect(pods).toHaveLength(5)
    expect(restarts(pods)).toEqual([])
    const migrations = await readdir(join(import.meta.dirname, '../../drizzle'))
    expect(Number(await psql('select count(*) from drizzle.__drizzle_migrations'))).toBe(
      migrations.filter((name) => name.endsWith('.sql')).length,
    )
    const logs = await Promise.all(
      (await apiPods()).map(({ metadata }) => kubectl('logs', metadata.name, '--container=migrate')),
    )
    expect(logs.filter((log) => /applied/i.test(log))).toHaveLength(1)
  })

  test('the API runs the image that the overlay names, in each of its containers', async () => {
    const { full } = await imageOf('overlays/gke')
    const images = (
      await list<Pod & { spec: { containers: { image: string }[]; initContainers: { image: string }[] } }>(
        'pods',
        '--selector=app.kubernetes.io/name=users-api',
      )
    ).flatMap(({ spec }) => [...spec.initContainers, ...spec.containers].map(({ image }) => image))
    // A cluster may drop the digest of an image that it holds already.
    const expected = process.env.E2E_IMAGE ?? full.replace(/@.*$/, '')
    expect(new Set(images.map((image) => image.replace(/@.*$/, '')))).toEqual(new Set([expected]))
  })

  test('a second apply changes nothing, and no pod restarts', async () => {
    const [before, pods] = [await versions(), (await list<Pod>('pods')).map(({ metadata }) => metadata.uid).sort()]
    expect(before.size).toBeGreaterThan(15)
    const lines = await apply('overlays/gke')
    expect(await versions()).toEqual(before)
    // kubectl sends a budget's selector each time (it is a field that patches replace), which the server finds to be no change.
    expect(lines.filter((line) => !/ unchanged$/.test(line))).toEqual([
      'poddisruptionbudget.policy/users-api configured',
    ])
    expect((await list<Pod>('pods')).map(({ metadata }) => metadata.uid).sort()).toEqual(pods)
    expect(restarts(await list<Pod>('pods'))).toEqual([])
  })
})

describe('overlays/gke-staging, applied beside overlays/gke', () => {
  beforeAll(async () => {
    await running()
    // Each Ingress has an address of its own on GKE; where they share one, a host keeps them apart.
    const host = [{ op: 'add', path: '/spec/rules/0/host', value: 'staging.example.com' }]
    const patches = [{ target: { kind: 'Ingress' }, patch: JSON.stringify(host) }]
    await apply('overlays/gke-staging', `patches: ${JSON.stringify(patches)}`, STAGING)
    await settled(STAGING)
  })
  afterAll(() => deleteNamespace(STAGING))

  test('has users of its own, and leaves those of production alone', async () => {
    const script = `
      const body = JSON.stringify({ username: 'Staging', email: 'staging@example.com' })
      const headers = { 'content-type': 'application/json' }
      console.log((await fetch('http://localhost:3000/users', { method: 'POST', headers, body })).status)`
    expect(await node('deployment/users-api', script, STAGING)).toBe('201')
    const found = await fetch(`${await reachable()}/users?username=Staging`)
    expect(await found.json()).toMatchObject({ users: [] })
    expect(await apiPods()).toHaveLength(4)
  })
})

describe('kubectl apply -k kustomize/overlays/minikube on a cluster without it', () => {
  beforeAll(async () => {
    await deleteNamespace()
    await apply('overlays/minikube')
    await settled()
  })
  // Another overlay's volume has another class, which cannot be changed.
  afterAll(() => deleteNamespace())

  test('is all it takes: one pod is ready, and users are created and listed through the Ingress', async () => {
    expect(await apiPods()).toHaveLength(1)
    await createsAndListsUsers(await reachable())
    expect(restarts(await list<Pod>('pods'))).toEqual([])
  })

  test('serves through the class traefik with a patch of one line', async () => {
    const patch = JSON.stringify([{ op: 'replace', path: '/spec/ingressClassName', value: 'traefik' }])
    await apply('overlays/minikube', `patches: ${JSON.stringify([{ target: { kind: 'Ingress' }, patch }])}`)
    type Ingress = { spec: { ingressClassName: string } }
    expect((await get<Ingress>('ingress', 'users-api')).spec.ingressClassName).toBe('traefik')
    expect((await fetch(`${await reachable()}/users`)).status).toBe(200)
  })
})

describe('the API server accepts each component', async () => {
  const folder = join(KUSTOMIZE, 'tests')
  const known = (await kubectl('api-resources', '--output=wide')).split('\n').map((row) => row.split(/\s+/))
  const kinds = new Set(known.flat())
  const kustomizations = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory())

  test.each(kustomizations.map(({ name }) => name))('%s', async (name) => {
    // A namespace of its own: what is there already would be compared, not created.
    const namespace = `users-e2e-${name}`
    const manifests = (await kubectl('kustomize', join(folder, name)))
      .replaceAll(/namespace: users$/gm, `namespace: ${namespace}`)
      .split(/^---$/m)
      .filter((text) => !/^kind: Namespace$/m.test(text))
    const unknown = manifests.filter((text) => !kinds.has(/^kind: (.*)$/m.exec(text)?.[1] ?? ''))
    // Kinds of Google's and of operators, which this cluster may lack.
    for (const text of unknown)
      expect(text).toMatch(
        /^apiVersion: \S*(gke\.io|cloud\.google\.com|monitoring\.(coreos|googleapis)\.com|gateway\.networking\.k8s\.io|cnpg\.io|external-secrets\.io)\//m,
      )
    await kubectl('create', 'namespace', namespace)
    try {
      const said = await kubectlWithInput(
        manifests.filter((text) => !unknown.includes(text)).join('---\n'),
        `--namespace=${namespace}`,
        'create',
        '--dry-run=server',
        '--validate=strict',
        '--filename=-',
      )
      expect(said).toContain('deployment.apps/users-api created (server dry run)')
    } finally {
      await kubectl('delete', 'namespace', namespace, '--wait=false')
    }
  })
})
