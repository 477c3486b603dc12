/** What a user writes into a kustomization of their own does what kustomize/README.md says. */
import { describe, expect, test } from 'vitest'
import { settings } from '../../src/config.ts'
import {
  apiContainers,
  build,
  buildMine,
  elsewhere,
  environmentOf,
  kustomizations,
  type Manifest,
  merged,
  needed,
  withItsOwn,
} from './build.ts'

/** Settings that a container does not take from the ConfigMap: the two roles, and their passwords from the Secret. */
const OWN_SETTINGS: Record<string, string[]> = {
  migrate: ['DB_USER', 'DB_PASSWORD', 'DB_API_USER', 'DB_API_PASSWORD'],
  api: ['DB_PASSWORD'],
}
const { roots, components } = kustomizations()
const added = components.map((folder) => `../../${folder}`)

describe('settings', () => {
  test.each(added)('are those of the user beside %s, and reach every container but for a few', (component) => {
    const given = needed[0]?.literals ?? []
    // Each another, so that one which comes from another's is told apart.
    const others = settings.map(({ name }) => `${name}=mine, for ${name}`)
    const isGiven = (literal: string) => given.some((one) => one.split('=')[0] === literal.split('=')[0])
    const literals = [...given, ...others.filter((literal) => !isGiven(literal))]
    const configMapGenerator = merged(...literals)
    const manifests = buildMine({ resources: ['../gke'], components: withItsOwn(component), configMapGenerator })
    for (const [name, own] of Object.entries(OWN_SETTINGS)) {
      const container = apiContainers(manifests).get(name)
      const variables = container && environmentOf(container, manifests)
      const reached = (one: string) => literals.includes(`${one}=${variables?.get(one)}`)
      const missed = settings.map((one) => one.name).filter((one) => !reached(one))
      expect(missed.sort(), name).toEqual(own.toSorted())
    }
  })

  test('are in all of our ConfigMaps once, for the user to be the only one who repeats one', () => {
    const names = build('base').flatMap(({ kind, data = {} }) => (kind === 'ConfigMap' ? Object.keys(data) : []))
    expect(names.toSorted()).toEqual([...new Set(names)].toSorted())
  })
})

describe('what a component needs to know', () => {
  test.each([
    ['external-secrets', 'SECRETS_PROJECT'],
    ['tls-gke', 'TLS_DOMAIN'],
    ['tracing', 'OTEL_EXPORTER_OTLP_ENDPOINT'],
  ])('and is not told: %s cannot be built, and names %s', (component, name) => {
    const mine = { resources: ['../gke'], components: [`../../components/${component}`] }
    expect(() => buildMine(mine)).toThrow(`data.${name}\` is missing`)
  })

  test.each([
    ['cloudsql', 'cloud-sql-proxy', 'CLOUDSQL_INSTANCE'],
    ['auth', 'api', 'AUTH_ISSUER'],
    ['auth-iap', 'api', 'AUTH_IAP_AUDIENCE'],
  ])('and is not told: for %s the kubelet finds no key for %s, and names %s', (component, container, name) => {
    const manifests = buildMine({ resources: ['../gke'], components: [`../../components/${component}`] })
    const variable = apiContainers(manifests)
      .get(container)
      ?.env?.find((one) => one.name === name)
    const configMap = manifests.find(({ kind, data }) => kind === 'ConfigMap' && data?.LOG_LEVEL === 'info')
    // Without `optional: true`.
    expect(variable?.valueFrom).toEqual({ configMapKeyRef: { name: configMap?.metadata.name, key: name } })
    expect(configMap?.data).not.toHaveProperty(name)
  })

  test.each([
    ['tls-gke-redirect'],
    ['gateway-gke', 'tls-gke'],
    ['tls-gke', 'gateway-gke'],
    ['gateway-gke', 'tls-gke-redirect'],
    ['tls-gke', 'tls-gke-redirect', 'gateway-gke'],
  ])('and does not find: %s %s %s gives no HTTPS, and cannot be built', (...names) => {
    const mine = names.map((name) => `../../components/${name}`)
    expect(() => buildMine({ resources: ['../gke'], components: mine, configMapGenerator: needed })).toThrow(
      /test failed|no resource matches strategic merge patch/,
    )
  })

  test('is no value of ours', () => {
    for (const folder of roots) expect(JSON.stringify(build(folder)), folder).not.toContain('my-project')
  })
})

describe('another namespace', () => {
  const overlays = roots.filter((folder) => /^(overlays|tests)\//.test(folder)).map((folder) => `../../${folder}`)
  const expectAllIn = (namespace: string, manifests: Manifest[]) => {
    expect(manifests.find(({ kind }) => kind === 'Namespace')?.metadata.name).toBe(namespace)
    expect(elsewhere(manifests, namespace)).toEqual([])
    // Nor do a subject, a claim or a selector name the one of before.
    expect(JSON.stringify(manifests)).not.toMatch(/"namespace":"users"|"users-staging"/)
  }

  test.each(overlays)('is all that is left when it is set on top of %s', (overlay) => {
    expectAllIn('other', buildMine({ namespace: 'other', resources: [overlay] }))
  })

  test.each(added)('is all that is left when it is set together with %s', (component) => {
    const mine = { namespace: 'other', components: withItsOwn(component), configMapGenerator: needed }
    expectAllIn('other', buildMine({ ...mine, resources: ['../gke'] }))
    expectAllIn('other', buildMine({ ...mine, resources: ['../gke-staging'] }))
  })

  test.each(added)('holds what %s adds later', (component) => {
    const mine = { resources: ['../gke-staging'], components: withItsOwn(component), configMapGenerator: needed }
    const manifests = buildMine(mine)
    expect(elsewhere(manifests, 'users-staging')).toEqual([])
    expect(JSON.stringify(manifests)).not.toContain('"namespace":"users"')
  })

  test('of other objects stays as the user wrote it', () => {
    const configMapGenerator = [{ name: 'dashboard', namespace: 'monitoring', literals: ['a=b'] }]
    const manifests = buildMine({ resources: ['../gke'], components: ['../../components/hpa'], configMapGenerator })
    expect(elsewhere(manifests, 'users')).toEqual([expect.stringMatching(/^ConfigMap monitoring\/dashboard-/)])
  })
})
