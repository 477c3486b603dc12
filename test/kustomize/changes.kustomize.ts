/** What a user writes into a kustomization of their own does what kustomize/README.md says. */
import { describe, expect, test } from 'vitest'
import { settings } from '../../src/config.ts'
import { apiContainers, buildMine, elsewhere, environmentOf, kustomizations, type Manifest } from './build.ts'

/** Settings that a container does not take from the ConfigMap: the two roles, and their passwords from the Secret. */
const OWN_SETTINGS: Record<string, string[]> = {
  migrate: ['DB_USER', 'DB_PASSWORD', 'DB_API_USER', 'DB_API_PASSWORD'],
  api: ['DB_PASSWORD'],
}
const setting = (...literals: string[]) => [{ name: 'users-api', behavior: 'merge', literals }]

describe('settings', () => {
  test.each(Object.keys(OWN_SETTINGS))('of the ConfigMap reach %s, but for a few', (name) => {
    const literals = settings.map((one) => `${one.name}=mine`)
    const manifests = buildMine({ resources: ['../gke'], configMapGenerator: setting(...literals) })
    const container = apiContainers(manifests).get(name)
    const variables = container && environmentOf(container, manifests)
    const missed = settings.filter((one) => variables?.get(one.name) !== 'mine')
    expect(missed.map((one) => one.name).sort()).toEqual(OWN_SETTINGS[name]?.toSorted())
  })
})

describe('another namespace', () => {
  const { roots, components } = kustomizations()
  const overlays = roots.filter((folder) => /^(overlays|tests)\//.test(folder)).map((folder) => `../../${folder}`)
  const added = components.map((folder) => `../../${folder}`)
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
    expectAllIn('other', buildMine({ namespace: 'other', resources: ['../gke'], components: [component] }))
    expectAllIn('other', buildMine({ namespace: 'other', resources: ['../gke-staging'], components: [component] }))
  })

  test.each(added)('holds what %s adds later', (component) => {
    const manifests = buildMine({ resources: ['../gke-staging'], components: [component] })
    expect(elsewhere(manifests, 'users-staging')).toEqual([])
    expect(JSON.stringify(manifests)).not.toContain('"namespace":"users"')
  })

  test('of other objects stays as the user wrote it', () => {
    const configMapGenerator = [{ name: 'dashboard', namespace: 'monitoring', literals: ['a=b'] }]
    const manifests = buildMine({ resources: ['../gke'], components: ['../../components/hpa'], configMapGenerator })
    expect(elsewhere(manifests, 'users')).toEqual([expect.stringMatching(/^ConfigMap monitoring\/dashboard-/)])
  })
})
