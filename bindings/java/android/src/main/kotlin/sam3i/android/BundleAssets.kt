package sam3i.android

import android.content.Context
import java.io.File

/**
 * Copies a bundle out of the app's assets, once: the library reads files, and assets are none.
 *
 * @param name folder below `assets`.
 * @param version changes when the bundle does, such as the app's version code; copies of other versions are removed.
 * @return the folder for [sam3i.Segmenter].
 */
fun copyBundle(context: Context, name: String, version: Long): File {
    val folder = File(context.noBackupFilesDir, "$name-$version")
    if (folder.isDirectory) return folder
    context.noBackupFilesDir.listFiles { file -> file.name.startsWith("$name-") }?.forEach(File::deleteRecursively)
    val unfinished = File(context.noBackupFilesDir, "$name-$version.unfinished")
    copy(context, name, unfinished)
    check(unfinished.renameTo(folder)) { "cannot rename $unfinished to $folder: is the storage full?" }
    return folder
}

private fun copy(context: Context, from: String, to: File) {
    val inside = context.assets.list(from).orEmpty()
    if (inside.isEmpty()) {
        context.assets.open(from).use { source -> to.outputStream().use(source::copyTo) }
        return
    }
    check(to.mkdirs()) { "cannot make the folder $to: is the storage full?" }
    inside.forEach { copy(context, "$from/$it", File(to, it)) }
}
