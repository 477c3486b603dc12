/** What a user writes into a kustomization of their own does what kustomize/README.md says. */
import { describe, expect, test } from 'vitest'
import { settings } from '../../src/config.ts'
import { apiContainers, buildMine, environmentOf } from './build.ts'

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
