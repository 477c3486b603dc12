import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type EnsureSecretOptions, ensureSecret } from '../../src/kubernetes/ensure-secret.ts'
import {
  get,
  KUSTOMIZE,
  type KubernetesObject,
  kubectl,
  kubectlWithInput,
  NAMESPACE,
  node,
  readyApiPods,
  running,
} from './kubectl.ts'

const ACCOUNT = `system:serviceaccount:${NAMESPACE}:users-api`

beforeAll(running)

describe("the API's service account", () => {
  const can = (...args: string[]) =>
    kubectl('auth', 'can-i', ...args, `--as=${ACCOUNT}`).then(
      (said) => said === 'yes',
      () => false,
    )

  test('may create Secrets and get users-db', async () => {
    expect(await can('create', 'secrets')).toBe(true)
    expect(await can('get', 'secrets/users-db')).toBe(true)
  })

  test('may do nothing else', async () => {
    const rules = (await kubectl('auth', 'can-i', '--list', '--no-headers', `--as=${ACCOUNT}`)).split('\n')
    // What everybody may: ask who he is and what he may, and read what the API server speaks.
    const own = rules.filter((rule) => !/^self\S+\.k8s\.io\s/.test(rule) && !/^\s+\[\//.test(rule))
    expect(own.map((rule) => rule.replaceAll(/\s+/g, ' ').trim()).sort()).toEqual([
      'secrets [] [] [create]',
      'secrets [] [users-db] [get]',
    ])
    for (const verb of ['list', 'watch', 'update', 'patch', 'delete'])
      expect(await can(verb, 'secrets'), verb).toBe(false)
    expect(await can('get', 'secrets/another')).toBe(false)
    expect(await can('create', 'secrets', '--namespace=default')).toBe(false)
    expect(await can('list', 'pods')).toBe(false)
  })

  test('has no token in the API container', async () => {
    const [pod] = await readyApiPods()
    const script = `
      import { existsSync } from 'node:fs'
      console.log(existsSync('/var/run/secrets/kubernetes.io'))`
    expect(await node(`${pod?.metadata.name}`, script)).toBe('false')
  })
})

describe('Pod Security', () => {
  test('restricted is enforced, and every pod that runs complies', async () => {
    const { labels } = (await get('namespace', NAMESPACE)).metadata
    expect(labels).toMatchObject({ 'pod-security.kubernetes.io/enforce': 'restricted' })
    // The API server checks the pods that are there when the label changes, and warns on stderr.
    const pods = JSON.parse(await kubectl('get', 'pods', '--output=json')) as { items: KubernetesObject[] }
    const label = (level: string) =>
      kubectlWithInput(
        '',
        'label',
        'namespace',
        NAMESPACE,
        '--overwrite',
        '--dry-run=server',
        `pod-security.kubernetes.io/enforce=${level}`,
      )
    expect(pods.items.length).toBeGreaterThanOrEqual(5)
    await kubectl('label', 'namespace', NAMESPACE, '--overwrite', 'pod-security.kubernetes.io/enforce=privileged')
    try {
      expect(await label('restricted')).not.toMatch(/Warning/)
    } finally {
      await kubectl('label', 'namespace', NAMESPACE, '--overwrite', 'pod-security.kubernetes.io/enforce=restricted')
    }
  })

  test('a pod that may do more is refused', async () => {
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'more' },
      spec: { containers: [{ name: 'more', image: 'more' }] },
    }
    await expect(kubectlWithInput(JSON.stringify(pod), 'create', '--dry-run=server', '--filename=-')).rejects.toThrow(
      /violates PodSecurity/,
    )
  })

  test('the root file system is read-only', async () => {
    const [pod] = await readyApiPods()
    const script = `
      import { writeFileSync } from 'node:fs'
      for (const path of ['/app/x', '/tmp/x', '/app/dist/x']) {
        try { writeFileSync(path, ''); console.log(path) } catch (error) { console.log(error.code) }
      }`
    const said = (await node(`${pod?.metadata.name}`, script)).split('\n')
    expect(said).toHaveLength(3)
    for (const word of said) expect(['EROFS', 'EACCES']).toContain(word)
  })
})

describe('ensureSecret against the API server', () => {
  const namespace = 'users-e2e-secret'
  let options: EnsureSecretOptions
  beforeAll(async () => {
    type Config = {
      clusters: {
        cluster: { server: string; 'certificate-authority-data'?: string; 'certificate-authority'?: string }
      }[]
    }
    const config = JSON.parse(await kubectl('config', 'view', '--minify', '--raw', '--output=json')) as Config
    const { server, ...authority } = config.clusters[0]?.cluster ?? { server: '' }
    const data = authority['certificate-authority-data']
    const ca = data
      ? Buffer.from(data, 'base64').toString()
      : await readFile(`${authority['certificate-authority']}`, 'utf8')
    await kubectl('create', 'namespace', namespace)
    // The account and the Role that the base has, elsewhere.
    const manifest = join(KUSTOMIZE, 'base/api-service-account.yaml')
    await kubectl(`--namespace=${namespace}`, 'apply', `--filename=${manifest}`)
    const token = await kubectl(`--namespace=${namespace}`, 'create', 'token', 'users-api')
    options = { server, token, ca, namespace, name: 'users-db', waitMs: 30_000 }
  })
  afterAll(() => kubectl('delete', 'namespace', namespace, '--ignore-not-found', '--wait=false'))

  type Secret = KubernetesObject & { data?: Record<string, string>; type: string }
  const secret = () => get<Secret>('secret', 'users-db', `--namespace=${namespace}`)

  test('of eight callers at once one creates the Secret, with two random passwords; later ones leave it as it is', async () => {
    const outcomes = await Promise.all(Array.from({ length: 8 }, () => ensureSecret(options)))
    expect(outcomes.filter((outcome) => outcome === 'created')).toHaveLength(1)
    expect(outcomes.filter((outcome) => outcome === 'exists')).toHaveLength(7)
    const made = await secret()
    const passwords = Object.entries(made.data ?? {}).map(([key, value]) => [
      key,
      Buffer.from(value, 'base64').toString(),
    ])
    expect(passwords.map(([key]) => key).sort()).toEqual(['owner-password', 'password'])
    for (const [, password] of passwords) expect(password).toMatch(/^[\w-]{32}$/)
    expect(new Set(passwords.map(([, password]) => password)).size).toBe(2)
    expect(made.metadata.labels).toEqual({
      'app.kubernetes.io/name': 'users-db',
      'app.kubernetes.io/part-of': 'users-api',
      'app.kubernetes.io/managed-by': 'ensure-secret',
    })
    expect(await ensureSecret(options)).toBe('exists')
    expect((await secret()).metadata.resourceVersion).toBe(made.metadata.resourceVersion)
  })

  test('a Secret without a key is an error that names it', async () => {
    await kubectl(`--namespace=${namespace}`, 'delete', 'secret', 'users-db', '--ignore-not-found')
    await kubectl(`--namespace=${namespace}`, 'create', 'secret', 'generic', 'users-db', '--from-literal=password=x')
    await expect(ensureSecret(options)).rejects.toThrow(`Secret ${namespace}/users-db lacks owner-password`)
  })

  test('an account without the Role is told which to apply', async () => {
    const token = await kubectl(`--namespace=${namespace}`, 'create', 'token', 'default')
    await expect(ensureSecret({ ...options, token, waitMs: 1500 })).rejects.toThrow(
      /cannot get Secret users-db .* Apply the Role/,
    )
  })

  test.each([
    ['a token that is none', { token: 'none' }, /cannot get Secret users-db .*: Unauthorized \(401\)/],
    ['an API server that is not there', { server: 'https://127.0.0.1:2' }, /cannot be reached: .*ECONNREFUSED/],
    ['a namespace that is none', { namespace: 'users-e2e-none' }, /cannot get Secret/],
  ])('%s ends in a sentence, in time', async (_, wrong, sentence) => {
    const begun = Date.now()
    await expect(ensureSecret({ ...options, ...wrong, waitMs: 1500 })).rejects.toThrow(sentence)
    expect(Date.now() - begun).toBeLessThan(5000)
  })
})
