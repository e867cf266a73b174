// The Android library of sam3i: the Java of ../src, the glue built by the NDK, and frames of CameraX. Not built here:
// docs/android.md says what was run. No weights are in the archive.
//
//   gradle -Psam3i.prefix=DIR assembleRelease     DIR/ABI has libraries and headers: docs/android.md
plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "sam3i.android"
    compileSdk = 36
    defaultConfig {
        minSdk = 26
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
        externalNativeBuild {
            cmake {
                val prefix = providers.gradleProperty("sam3i.prefix").get()
                arguments += listOf(
                    "-DANDROID_STL=c++_shared",
                    "-DSAM3I_ONNXRUNTIME=ON",
                    "-DSAM3I_ANDROID_PREFIX=$prefix",
                )
            }
        }
    }
    externalNativeBuild { cmake { path = file("../CMakeLists.txt") } }
    sourceSets.getByName("main").java.srcDir("../src/main/java")
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    kotlinOptions { jvmTarget = "11" }
}

dependencies {
    api("androidx.camera:camera-core:1.4.2")
}
