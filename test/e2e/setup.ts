import { deleteNamespace, kubectl } from './kubectl.ts'

/** Begins and ends with a cluster that has no namespace users. */
export default async function setup() {
  await kubectl('version', '--output=json', '--request-timeout=10s')
  await deleteNamespace()
  return deleteNamespace
}
