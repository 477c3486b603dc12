/** The component cloudnative-pg, as far as it can be told without a cluster; test/e2e/cnpg.test.ts lets its servers fail. */
import { dirname } from 'node:path'
import { describe, expect, test } from 'vitest'
import { apiContainers, build, buildMine, environmentOf, podTemplateOf, workloadsOf } from './build.ts'

const component = '../../components/cloudnative-pg'

describe.each(['migrate', 'api'])('the container %s', (name) => {
  const manifests = build('tests/cloudnative-pg')
  const container = apiContainers(manifests).get(name)
  const variables = container && environmentOf(container, manifests)

  test("asks the operator's Services", () => {
    expect(variables?.get('DB_HOST')).toBe('users-db-rw')
    expect(variables?.get('DB_READ_HOST')).toBe('users-db-ro')
  })

  test("trusts the operator's authority alone, and does not see its key", () => {
    expect(variables?.get('DB_SSLMODE')).toBe('verify-full')
    const file = `${variables?.get('DB_SSLROOTCERT')}`
    const mount = container?.volumeMounts?.find(({ mountPath }) => mountPath === dirname(file))
    const volumes = workloadsOf(manifests).flatMap((workload) => podTemplateOf(workload).spec.volumes)
    expect(volumes.find((volume) => volume?.name === mount?.name)?.secret).toEqual({
      secretName: 'users-db-ca',
      items: [{ key: 'ca.crt', path: 'ca.crt' }],
    })
    expect(file).toBe(`${mount?.mountPath}/ca.crt`)
  })
})

test.each([
  ['gke', 'standard-rwo'],
  ['gke-staging', 'standard-rwo'],
  ['minikube', 'standard'],
])("on %s the servers' volumes have the StatefulSet's storage class, %s", (overlay, storageClass) => {
  const cluster = (more: object = {}) =>
    buildMine({ resources: [`../${overlay}`], components: [component], ...more }).find(({ kind }) => kind === 'Cluster')
  expect(cluster()?.spec.storage?.pvcTemplate.storageClassName).toBe(storageClass)
  expect(cluster({ namespace: 'other' })).toEqual({
    ...cluster(),
    metadata: { ...cluster()?.metadata, namespace: 'other' },
  })
})
