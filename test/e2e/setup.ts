import { deleteNamespace, kubectl, STAGING } from './kubectl.ts'

/** Begins and ends with a cluster that has neither of the namespaces. */
export default async function setup() {
  await kubectl('version', '--output=json', '--request-timeout=10s')
  const clean = async () => {
    await deleteNamespace()
    await deleteNamespace(STAGING)
  }
  await clean()
  return clean
}
